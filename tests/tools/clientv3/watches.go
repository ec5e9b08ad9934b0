package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
)

// watch-resume: the server is restarted under a watch and a writer; then each change that was
// acknowledged has been told once, in order, and none that was not made.
func watchResume(t *test) error {
	watched := t.client.Watch(t.ctx, t.prefix, clientv3.WithPrefix(), clientv3.WithPrevKV(), clientv3.WithProgressNotify())
	acknowledged := map[int64]string{}
	write := func(from, count int) {
		for number := from; len(acknowledged) < count && t.ctx.Err() == nil; number++ {
			value := strconv.Itoa(number)
			if revision, err := t.attempt(strconv.Itoa(number%7), value); err == nil {
				acknowledged[revision] = value
			}
		}
	}
	write(0, 100)
	for round := range 3 {
		go func() { // what is written while the server goes away has an unknown outcome
			for number := range 20 {
				t.attempt("unsure", strconv.Itoa(round*100+number))
			}
		}()
		tell("restart")
		write(1000*(round+1), 100*(round+2))
	}
	last, err := t.client.Put(t.ctx, t.prefix+"last", "")
	if err != nil {
		return err
	}
	told := map[int64]string{}
	previous := int64(0)
	for previous < last.Header.Revision {
		answer, ok := <-watched
		if !ok || answer.Err() != nil {
			return fmt.Errorf("the watch ended: %v", answer.Err())
		}
		for _, event := range answer.Events {
			if event.Kv.ModRevision <= previous {
				return fmt.Errorf("revision %d was told after %d", event.Kv.ModRevision, previous)
			}
			if event.PrevKv == nil && !event.IsCreate() {
				return fmt.Errorf("no previous value at revision %d", event.Kv.ModRevision)
			}
			previous = event.Kv.ModRevision
			told[previous] = string(event.Kv.Value)
		}
	}
	for revision, value := range acknowledged {
		if told[revision] != value {
			return fmt.Errorf("revision %d wrote %q, and %q was told", revision, value, told[revision])
		}
	}
	return nil
}

// attempt puts a key and returns the revision; it does not wait long for a server that is away.
func (t *test) attempt(name, value string) (int64, error) {
	ctx, cancel := context.WithTimeout(t.ctx, 5*time.Second)
	defer cancel()
	answer, err := t.client.Put(ctx, t.prefix+name, value)
	if err != nil {
		return 0, err
	}
	return answer.Header.Revision, nil
}

// watch-cancel: a canceled context ends one watch of a stream and leaves the others.
func watchCancel(t *test) error {
	ctx, cancel := context.WithCancel(t.ctx)
	defer cancel()
	ended := t.client.Watch(ctx, t.prefix, clientv3.WithPrefix())
	stays := t.client.Watch(t.ctx, t.prefix, clientv3.WithPrefix(), clientv3.WithCreatedNotify())
	if created := <-stays; !created.Created {
		return fmt.Errorf("not created: %v", created)
	}
	cancel()
	for range ended {
	}
	if err := t.put("a", "1"); err != nil {
		return err
	}
	if told := <-stays; len(told.Events) != 1 || string(told.Events[0].Kv.Value) != "1" {
		return fmt.Errorf("told: %v", told.Events)
	}
	if err := t.client.RequestProgress(t.ctx); err != nil {
		return err
	}
	if told := <-stays; !told.IsProgressNotify() {
		return fmt.Errorf("no progress but %v", told.Events)
	}
	return nil
}

// watch-compacted: a watch that asks for history that is gone ends with the compact revision.
func watchCompacted(t *test) error {
	var revisions []int64
	for number := range 5 {
		answer, err := t.client.Put(t.ctx, t.prefix+"a", strconv.Itoa(number))
		if err != nil {
			return err
		}
		revisions = append(revisions, answer.Header.Revision)
	}
	if _, err := t.client.Compact(t.ctx, revisions[3], clientv3.WithCompactPhysical()); err != nil {
		return err
	}
	for told := range t.client.Watch(t.ctx, t.prefix+"a", clientv3.WithRev(revisions[0])) {
		if !errors.Is(told.Err(), rpctypes.ErrCompacted) || told.CompactRevision != revisions[3] {
			return fmt.Errorf("told %v, compacted at %d", told.Err(), told.CompactRevision)
		}
	}
	if _, err := t.client.Get(t.ctx, t.prefix+"a", clientv3.WithRev(revisions[2])); !errors.Is(err, rpctypes.ErrCompacted) {
		return fmt.Errorf("read: %v", err)
	}
	if _, err := t.client.Get(t.ctx, t.prefix+"a", clientv3.WithRev(revisions[4]+1000)); !errors.Is(err, rpctypes.ErrFutureRev) {
		return fmt.Errorf("read: %v", err)
	}
	told := <-t.client.Watch(t.ctx, t.prefix+"a", clientv3.WithRev(revisions[3]))
	if len(told.Events) != 2 {
		return fmt.Errorf("from the compacted revision on: %v", told.Events)
	}
	return nil
}
