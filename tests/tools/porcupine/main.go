// Porcupine-check says whether a history of key-value operations, one JSON
// object a line, could have happened one operation at a time. The format is
// described in the README of tests/tools.
package main

import (
	"errors"
	"flag"
	"fmt"
	"io"
	"os"
	"time"

	"github.com/anishathalye/porcupine"
)

const (
	exitLinearizable = 0
	exitIllegal      = 1
	exitBadInput     = 2
	exitTimeout      = 3
)

func main() {
	timeout := flag.Duration("timeout", 2*time.Minute, "give up after this long")
	picture := flag.String("picture", "", "write an HTML picture of an illegal history to this file")
	flag.Usage = func() {
		fmt.Fprintln(os.Stderr, "usage: porcupine-check [--timeout 2m] [--picture FILE] < HISTORY")
		flag.PrintDefaults()
	}
	flag.Parse()
	os.Exit(run(os.Stdin, os.Stdout, *timeout, *picture))
}

func run(in io.Reader, out io.Writer, timeout time.Duration, picture string) int {
	history, err := readHistory(in)
	if err != nil {
		fmt.Fprintln(out, "bad input:", err)
		return exitBadInput
	}
	if err := errors.Join(checkRevisions(history), checkRaces(history)); err != nil {
		fmt.Fprintln(out, "illegal:", err)
		return exitIllegal
	}
	model := groupModel()
	result, info := porcupine.CheckOperationsVerbose(model, toOperations(history), timeout)
	switch result {
	case porcupine.Ok:
		fmt.Fprintf(out, "ok: %d operations\n", len(history))
		return exitLinearizable
	case porcupine.Unknown:
		fmt.Fprintln(out, "unknown: no answer within", timeout)
		return exitTimeout
	}
	fmt.Fprintln(out, "illegal: not linearizable, keys:", illegalGroups(model, history, timeout))
	if picture != "" {
		if err := porcupine.VisualizePath(model, info, picture); err != nil {
			fmt.Fprintln(out, "no picture:", err)
		}
	}
	return exitIllegal
}
