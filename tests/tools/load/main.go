// Load drives an etcd server with closed-loop clients and prints what it saw as one line of JSON.
// It is made for ratios between servers on one machine in one run.
package main

import (
	"context"
	"encoding/json"
	"flag"
	"fmt"
	"os"
	"slices"
	"sync"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.uber.org/zap"
)

var (
	endpoint = flag.String("endpoint", "", "what to dial: http://HOST:PORT")
	clients  = flag.Int("clients", 16, "requests under way at a time")
	conns    = flag.Int("conns", 8, "connections they share")
	duration = flag.Duration("duration", 2*time.Second, "how long")
	size     = flag.Int("size", 1024, "bytes of a value")
	timeout  = flag.Duration("timeout", 30*time.Second, "for one request")
)

// A step is one request of a client; n counts that client's requests.
type step func(ctx context.Context, client *clientv3.Client, key string, n int) error

var steps = map[string]step{"put": put, "get": get, "create": create}

func put(ctx context.Context, client *clientv3.Client, key string, n int) error {
	_, err := client.Put(ctx, key, value(n))
	return err
}

func get(ctx context.Context, client *clientv3.Client, key string, n int) error {
	if n == 0 {
		return put(ctx, client, key, n)
	}
	answer, err := client.Get(ctx, key)
	if err == nil && len(answer.Kvs) != 1 {
		return fmt.Errorf("%d keys instead of one", len(answer.Kvs))
	}
	return err
}

// create is what kube-apiserver sends for a new object.
func create(ctx context.Context, client *clientv3.Client, key string, n int) error {
	key = fmt.Sprintf("%s/%d", key, n)
	answer, err := client.Txn(ctx).
		If(clientv3.Compare(clientv3.ModRevision(key), "=", 0)).
		Then(clientv3.OpPut(key, value(n))).Commit()
	if err == nil && !answer.Succeeded {
		return fmt.Errorf("%s is there already", key)
	}
	return err
}

func value(n int) string {
	return fmt.Sprintf("%0*d", *size, n)
}

// Report is what is printed.
type Report struct {
	Ops    int     `json:"ops"`
	Rate   float64 `json:"rate"`
	P50    float64 `json:"p50_ms"`
	P99    float64 `json:"p99_ms"`
	Errors int     `json:"errors"`
	Error  string  `json:"error,omitempty"`
}

func main() {
	flag.Parse()
	do, known := steps[flag.Arg(0)]
	if !known || *endpoint == "" || *clients < 1 || *conns < 1 {
		fmt.Fprintln(os.Stderr, "usage: load --endpoint URL [--clients N] [--duration D] put|get|create")
		os.Exit(2)
	}
	pool := make([]*clientv3.Client, *conns)
	for i := range pool {
		client, err := clientv3.New(clientv3.Config{
			Endpoints: []string{*endpoint}, DialTimeout: *timeout, Logger: zap.NewNop(),
		})
		if err != nil {
			fmt.Fprintln(os.Stderr, err)
			os.Exit(1)
		}
		defer client.Close()
		pool[i] = client
	}
	_ = json.NewEncoder(os.Stdout).Encode(drive(pool, do))
}

func drive(pool []*clientv3.Client, do step) Report {
	var (
		lock   sync.Mutex
		group  sync.WaitGroup
		report Report
		all    []time.Duration
	)
	prefix := fmt.Sprintf("load/%d/", time.Now().UnixNano())
	begin := time.Now()
	for id := range *clients {
		group.Go(func() {
			taken, errors, last := work(pool[id%len(pool)], do, fmt.Sprintf("%s%d", prefix, id), begin)
			lock.Lock()
			defer lock.Unlock()
			all = append(all, taken...)
			report.Errors += errors
			if last != nil {
				report.Error = last.Error()
			}
		})
	}
	group.Wait()
	report.Ops = len(all)
	report.Rate = float64(len(all)) / time.Since(begin).Seconds()
	report.P50, report.P99 = percentile(all, 0.5), percentile(all, 0.99)
	return report
}

func work(client *clientv3.Client, do step, key string, begin time.Time) (taken []time.Duration, errors int, last error) {
	for n := 0; time.Since(begin) < *duration; n++ {
		ctx, cancel := context.WithTimeout(context.Background(), *timeout)
		start := time.Now()
		if err := do(ctx, client, key, n); err != nil {
			errors, last = errors+1, err
		} else {
			taken = append(taken, time.Since(start))
		}
		cancel()
	}
	return taken, errors, last
}

// percentile returns the share-th of some times, in milliseconds.
func percentile(taken []time.Duration, share float64) float64 {
	if len(taken) == 0 {
		return 0
	}
	sorted := slices.Sorted(slices.Values(taken))
	return float64(sorted[int(share*float64(len(sorted)-1))]) / float64(time.Millisecond)
}
