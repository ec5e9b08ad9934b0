package main

import (
	"context"
	"fmt"

	clientv3 "go.etcd.io/etcd/client/v3"
	"golang.org/x/sync/errgroup"
)

// watches: ten thousand on one stream, each of which is told of its key and of nothing else.
func manyWatches(t *test) error {
	const count = 10_000
	ctx, cancel := context.WithCancel(t.ctx)
	defer cancel()
	var watched [count]clientv3.WatchChan
	for number := range watched {
		watched[number] = t.client.Watch(ctx, fmt.Sprint(t.prefix, number))
	}
	for _, number := range []int{0, 1, 777, count - 1} {
		if err := t.put(fmt.Sprint(number), "v"); err != nil {
			return err
		}
		if err := told(<-watched[number], fmt.Sprint(t.prefix, number)); err != nil {
			return err
		}
	}
	if err := t.client.RequestProgress(ctx); err != nil {
		return err
	}
	for number, channel := range watched {
		if answer := <-channel; !answer.IsProgressNotify() {
			return fmt.Errorf("watch %d was told %v", number, answer.Events)
		}
	}
	return nil
}

// crowd: ten thousand watches of one key, all of which are told of a change.
func crowd(t *test) error {
	const count = 10_000
	ctx, cancel := context.WithCancel(t.ctx)
	defer cancel()
	var watched [count]clientv3.WatchChan
	for number := range watched {
		watched[number] = t.client.Watch(ctx, t.prefix+"key")
	}
	for range 3 {
		if err := t.put("key", "v"); err != nil {
			return err
		}
	}
	for _, channel := range watched {
		for seen := 0; seen < 3; {
			answer := <-channel
			if answer.Err() != nil || len(answer.Events) == 0 {
				return fmt.Errorf("told %v %v", answer.Events, answer.Err())
			}
			seen += len(answer.Events)
		}
	}
	return nil
}

// connections: a thousand clients, each with a watch, a lease and a write of its own.
func connections(t *test) error {
	const count = 1000
	group, ctx := errgroup.WithContext(t.ctx)
	group.SetLimit(50) // at a time, to be made
	clients := make([]*clientv3.Client, count)
	watched := make([]clientv3.WatchChan, count)
	defer func() {
		for _, client := range clients {
			if client != nil {
				client.Close()
			}
		}
	}()
	for number := range count {
		group.Go(func() (err error) {
			if clients[number], err = dial(); err != nil {
				return err
			}
			granted, err := clients[number].Grant(ctx, 600)
			if err != nil {
				return err
			}
			watched[number] = clients[number].Watch(t.ctx, t.prefix+"key")
			_, err = clients[number].Put(ctx, fmt.Sprint(t.prefix, number), "", clientv3.WithLease(granted.ID))
			return err
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if err := t.put("key", "v"); err != nil {
		return err
	}
	for _, channel := range watched {
		if err := told(<-channel, t.prefix+"key"); err != nil {
			return err
		}
	}
	found, err := t.client.Get(t.ctx, t.prefix, clientv3.WithPrefix(), clientv3.WithCountOnly())
	if err == nil && found.Count != count+1 {
		err = fmt.Errorf("%d keys", found.Count)
	}
	return err
}

func told(answer clientv3.WatchResponse, key string) error {
	if answer.Err() != nil || len(answer.Events) != 1 || string(answer.Events[0].Kv.Key) != key {
		return fmt.Errorf("told %v %v", answer.Events, answer.Err())
	}
	return nil
}
