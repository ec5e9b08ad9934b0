// Clientv3-check uses a server as programs on etcd's Go client do, one case after another, and
// prints "NAME: ok" or "NAME: what is wrong". Each case has keys of its own, and leaves none.
package main

import (
	"bufio"
	"context"
	"flag"
	"fmt"
	"math/rand/v2"
	"os"
	"sort"
	"strings"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

var (
	endpoint = flag.String("endpoint", "", "what to dial: http://HOST:PORT")
	timeout  = flag.Duration("timeout", 2*time.Minute, "for one case")
)

// A test is one case under way.
type test struct {
	ctx    context.Context
	client *clientv3.Client
	prefix string // of all its keys
}

var cases = map[string]func(*test) error{
	"lock": lock, "lock-lost": lockLost, "election": election, "stm": stm,
	"lease": lease, "session": session,
	"watch-resume": watchResume, "watch-cancel": watchCancel, "watch-compacted": watchCompacted,
	"stream": stream, "pages": pages, "namespace": namespaced, "mirror": mirrored,
	"watches": manyWatches, "crowd": crowd, "connections": connections,
	"leasing": leased, "ordering": ordered, "kubernetes": kubernetesClient, "sync": synced,
}

func main() {
	flag.Parse()
	names := flag.Args()
	if len(names) == 0 || *endpoint == "" {
		known := make([]string, 0, len(cases))
		for name := range cases {
			known = append(known, name)
		}
		sort.Strings(known)
		fmt.Fprintln(os.Stderr, "usage: clientv3-check --endpoint URL CASE...; there are", strings.Join(known, " "))
		os.Exit(2)
	}
	status := 0
	for _, name := range names {
		run, ok := cases[name]
		if !ok {
			fmt.Fprintln(os.Stderr, "no such case:", name)
			os.Exit(2)
		}
		if err := try(run, name); err != nil {
			fmt.Printf("%s: %v\n", name, err)
			status = 1
		} else {
			fmt.Printf("%s: ok\n", name)
		}
	}
	os.Exit(status)
}

func try(run func(*test) error, name string) error {
	ctx, cancel := context.WithTimeout(context.Background(), *timeout)
	defer cancel()
	client, err := dial()
	if err != nil {
		return err
	}
	defer client.Close()
	t := &test{ctx, client, fmt.Sprintf("%s/%x/", name, rand.Uint64())}
	if err := run(t); err != nil {
		return err
	}
	_, err = client.Delete(ctx, t.prefix, clientv3.WithPrefix())
	return err
}

func dial() (*clientv3.Client, error) {
	return clientv3.New(clientv3.Config{
		Endpoints:   []string{*endpoint},
		DialTimeout: 20 * time.Second,
		Logger:      zap.NewNop(),
	})
}

func (t *test) put(name, value string, options ...clientv3.OpOption) error {
	_, err := t.client.Put(t.ctx, t.prefix+name, value, options...)
	return err
}

// expect gets a key and compares its value; "" is a missing key.
func (t *test) expect(name, value string) error {
	found, err := t.client.Get(t.ctx, t.prefix+name)
	if err != nil {
		return err
	}
	have := ""
	if len(found.Kvs) > 0 {
		have = string(found.Kvs[0].Value)
	}
	if have != value {
		return fmt.Errorf("%s is %q, want %q", name, have, value)
	}
	return nil
}

// until asks again and again.
func (t *test) until(what string, holds func() (bool, error)) error {
	for {
		if done, err := holds(); done || err != nil {
			return err
		}
		select {
		case <-t.ctx.Done():
			return fmt.Errorf("in vain: %s", what)
		case <-time.After(50 * time.Millisecond):
		}
	}
}

// tell says a word to whoever runs this program, and waits for a line from there.
func tell(word string) {
	fmt.Println(word)
	bufio.NewReader(os.Stdin).ReadString('\n')
}
