package main

import (
	"fmt"
	"sort"
)

// checkRevisions checks what holds across keys: the store's revision never
// goes back, and a change has one that nobody had been shown before.
func checkRevisions(history []*Entry) error {
	var calls []*Entry
	owners := map[int64]*Entry{}
	for _, entry := range history {
		if !entry.known() || entry.Revision == 0 {
			continue
		}
		calls = append(calls, entry)
		if !entry.changes() {
			continue
		}
		if other := owners[entry.Revision]; other != nil {
			return fmt.Errorf("lines %d and %d both made revision %d", other.line, entry.line, entry.Revision)
		}
		owners[entry.Revision] = entry
	}
	returns := append([]*Entry(nil), calls...)
	sort.SliceStable(calls, func(i, j int) bool { return calls[i].Call < calls[j].Call })
	sort.SliceStable(returns, func(i, j int) bool { return *returns[i].Return < *returns[j].Return })

	var newest *Entry // of those that had returned before the call at hand
	done := 0
	for _, entry := range calls {
		for ; done < len(returns) && *returns[done].Return < entry.Call; done++ {
			if newest == nil || returns[done].Revision > newest.Revision {
				newest = returns[done]
			}
		}
		if newest == nil {
			continue
		}
		if entry.Revision < newest.Revision || entry.changes() && entry.Revision == newest.Revision {
			return fmt.Errorf("line %d has revision %d, but line %d had shown %d before its call",
				entry.line, entry.Revision, newest.line, newest.Revision)
		}
	}
	return nil
}
