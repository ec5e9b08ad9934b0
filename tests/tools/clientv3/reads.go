package main

import (
	"errors"
	"fmt"
	"slices"
	"strings"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/kubernetes"
	"go.etcd.io/etcd/client/v3/leasing"
	"go.etcd.io/etcd/client/v3/mirror"
	"go.etcd.io/etcd/client/v3/namespace"
	"go.etcd.io/etcd/client/v3/ordering"
)

const many = 300

func fill(t *test) error {
	for number := range many {
		if err := t.put(fmt.Sprintf("%04d", number), strings.Repeat("x", 2000)); err != nil {
			return err
		}
	}
	return nil
}

// stream: RangeStream gives what Range gives, in more than one part.
func stream(t *test) error {
	if err := fill(t); err != nil {
		return err
	}
	for _, options := range [][]clientv3.OpOption{
		{}, {clientv3.WithLimit(many / 2)}, {clientv3.WithKeysOnly()}, {clientv3.WithCountOnly()}, {clientv3.WithSerializable()},
	} {
		options = append(options, clientv3.WithPrefix())
		want, err := t.client.Get(t.ctx, t.prefix, options...)
		if err != nil {
			return err
		}
		parts, err := t.client.GetStream(t.ctx, t.prefix, options...)
		if err != nil {
			return err
		}
		have, err := clientv3.GetStreamToGetResponse(parts)
		if err != nil {
			return err
		}
		if have.Count != want.Count || have.More != want.More || len(have.Kvs) != len(want.Kvs) ||
			have.Header.Revision != want.Header.Revision {
			return fmt.Errorf("%d of %d keys, more %v at %d; want %d of %d, %v at %d",
				len(have.Kvs), have.Count, have.More, have.Header.Revision,
				len(want.Kvs), want.Count, want.More, want.Header.Revision)
		}
		for number, kv := range want.Kvs {
			if kv.String() != have.Kvs[number].String() {
				return fmt.Errorf("%v, want %v", have.Kvs[number], kv)
			}
		}
	}
	return cut(t)
}

func cut(t *test) error {
	parts, err := t.client.GetStream(t.ctx, t.prefix, clientv3.WithPrefix())
	if err != nil {
		return err
	}
	count := 0
	for part := range parts {
		if err := part.Err(); err != nil {
			return err
		}
		count++
	}
	if count < 2 {
		return fmt.Errorf("%d keys came in %d parts", many, count)
	}
	return nil
}

// pages: reading on from the last key at one revision misses nothing and repeats nothing.
func pages(t *test) error {
	if err := fill(t); err != nil {
		return err
	}
	end := clientv3.GetPrefixRangeEnd(t.prefix)
	var keys []string
	revision := int64(0)
	for from := t.prefix; ; from = keys[len(keys)-1] + "\x00" {
		page, err := t.client.Get(t.ctx, from, clientv3.WithRange(end), clientv3.WithLimit(70), clientv3.WithRev(revision))
		if err != nil {
			return err
		}
		if revision == 0 {
			revision = page.Header.Revision
			if err := t.put("0000a", "later"); err != nil {
				return err
			}
		}
		if want := int64(many - len(keys)); page.Count != want {
			return fmt.Errorf("count %d, want %d", page.Count, want)
		}
		for _, kv := range page.Kvs {
			keys = append(keys, string(kv.Key))
		}
		if !page.More {
			break
		}
	}
	if len(keys) != many || !slices.IsSorted(keys) {
		return fmt.Errorf("%d keys", len(keys))
	}
	return nil
}

// namespace: a client that sees one prefix only, for keys, transactions, watches and leases.
func namespaced(t *test) error {
	kv := namespace.NewKV(t.client.KV, t.prefix)
	watched := namespace.NewWatcher(t.client.Watcher, t.prefix).Watch(t.ctx, "", clientv3.WithFromKey())
	grants := namespace.NewLease(t.client.Lease, t.prefix)
	granted, err := grants.Grant(t.ctx, 60)
	if err != nil {
		return err
	}
	answer, err := kv.Txn(t.ctx).If(
		clientv3.Compare(clientv3.Version("a"), "=", 0),
	).Then(
		clientv3.OpPut("a", "1", clientv3.WithLease(granted.ID)),
		clientv3.OpTxn(nil, []clientv3.Op{clientv3.OpPut("b", "2"), clientv3.OpGet("", clientv3.WithFromKey())}, nil),
	).Commit()
	if err != nil || !answer.Succeeded {
		return fmt.Errorf("transaction: %v %v", answer, err)
	}
	inner := answer.Responses[1].GetResponseTxn().Responses[1].GetResponseRange()
	if len(inner.Kvs) != 2 || string(inner.Kvs[0].Key) != "a" {
		return fmt.Errorf("seen inside: %v", inner.Kvs)
	}
	told := <-watched
	if len(told.Events) != 2 || string(told.Events[1].Kv.Key) != "b" {
		return fmt.Errorf("told: %v", told.Events)
	}
	left, err := grants.TimeToLive(t.ctx, granted.ID, clientv3.WithAttachedKeys())
	if err != nil || len(left.Keys) != 1 || string(left.Keys[0]) != "a" {
		return fmt.Errorf("attached: %v %v", left, err)
	}
	_, err = grants.Revoke(t.ctx, granted.ID)
	return err
}

// mirror: what is there, then what changes, as `etcdctl make-mirror` reads it.
func mirrored(t *test) error {
	if err := fill(t); err != nil {
		return err
	}
	syncer := mirror.NewSyncer(t.client, t.prefix, 0)
	base, failed := syncer.SyncBase(t.ctx)
	copied := map[string]string{}
	for page := range base {
		for _, kv := range page.Kvs {
			copied[string(kv.Key)] = string(kv.Value)
		}
	}
	if err := <-failed; err != nil {
		return err
	}
	if len(copied) != many {
		return fmt.Errorf("%d keys were copied", len(copied))
	}
	updates := syncer.SyncUpdates(t.ctx)
	if err := t.put("0000", "changed"); err != nil {
		return err
	}
	if _, err := t.client.Delete(t.ctx, t.prefix+"0001"); err != nil {
		return err
	}
	var seen []*clientv3.Event
	for len(seen) < 2 {
		told, ok := <-updates
		if !ok || told.Err() != nil {
			return fmt.Errorf("the updates ended: %v", told.Err())
		}
		seen = append(seen, told.Events...)
	}
	if string(seen[0].Kv.Value) != "changed" || seen[1].Type != clientv3.EventTypeDelete {
		return fmt.Errorf("told: %v", seen)
	}
	return nil
}

// leasing: two caching clients, each of which sees the other's writes.
func leased(t *test) error {
	second, err := dial()
	if err != nil {
		return err
	}
	defer second.Close()
	ours, closeOurs, err := leasing.NewKV(t.client, t.prefix+"leasing/")
	if err != nil {
		return err
	}
	defer closeOurs()
	theirs, closeTheirs, err := leasing.NewKV(second, t.prefix+"leasing/")
	if err != nil {
		return err
	}
	defer closeTheirs()
	key := t.prefix + "key"
	for number := range 10 {
		writer, reader := ours, theirs
		if number%2 == 1 {
			writer, reader = theirs, ours
		}
		value := fmt.Sprint(number)
		if _, err := writer.Put(t.ctx, key, value); err != nil {
			return err
		}
		for range 2 {
			found, err := reader.Get(t.ctx, key)
			if err != nil {
				return err
			}
			if len(found.Kvs) != 1 || string(found.Kvs[0].Value) != value {
				return fmt.Errorf("read %v, want %s", found.Kvs, value)
			}
		}
	}
	if _, err := ours.Delete(t.ctx, key); err != nil {
		return err
	}
	found, err := theirs.Get(t.ctx, key)
	if err == nil && len(found.Kvs) != 0 {
		err = errors.New("a deleted key is read")
	}
	return err
}

// ordering: reads through the client that refuses to go back in time.
func ordered(t *test) error {
	back := func(clientv3.Op, clientv3.OpResponse, int64) error { return errors.New("the revision went back") }
	kv := ordering.NewKV(t.client.KV, back)
	for number := range 50 {
		if _, err := kv.Put(t.ctx, t.prefix+"a", fmt.Sprint(number)); err != nil {
			return err
		}
		if _, err := kv.Get(t.ctx, t.prefix+"a", clientv3.WithSerializable()); err != nil {
			return err
		}
	}
	return nil
}

// kubernetes: the client that kube-apiserver has used since 1.32.
func kubernetesClient(t *test) error {
	client := kubernetes.Client{Client: t.client}
	key := t.prefix + "key"
	created, err := client.OptimisticPut(t.ctx, key, []byte("1"), 0, kubernetes.PutOptions{})
	if err != nil || !created.Succeeded {
		return fmt.Errorf("created: %v %v", created, err)
	}
	conflict, err := client.OptimisticPut(t.ctx, key, []byte("2"), 0, kubernetes.PutOptions{GetOnFailure: true})
	if err != nil || conflict.Succeeded || conflict.KV.ModRevision != created.Revision {
		return fmt.Errorf("created twice: %v %v", conflict, err)
	}
	updated, err := client.OptimisticPut(t.ctx, key, []byte("3"), created.Revision, kubernetes.PutOptions{GetOnFailure: true})
	if err != nil || !updated.Succeeded {
		return fmt.Errorf("updated: %v %v", updated, err)
	}
	old, err := client.Get(t.ctx, key, kubernetes.GetOptions{Revision: created.Revision})
	if err != nil || string(old.KV.Value) != "1" || old.Revision != updated.Revision {
		return fmt.Errorf("read at %d: %v %v", created.Revision, old, err)
	}
	for _, name := range []string{"a", "b"} {
		if err := t.put(name, ""); err != nil {
			return err
		}
	}
	page, err := client.List(t.ctx, t.prefix, kubernetes.ListOptions{Limit: 2})
	if err != nil || len(page.Kvs) != 2 || page.Count != 3 {
		return fmt.Errorf("listed: %v %v", page, err)
	}
	next := kubernetes.ListOptions{Limit: 2, Revision: page.Revision, Continue: string(page.Kvs[1].Key) + "\x00"}
	rest, err := client.List(t.ctx, t.prefix, next)
	if err != nil || len(rest.Kvs) != 1 || rest.Count != 1 {
		return fmt.Errorf("listed on: %v %v", rest, err)
	}
	stale, err := client.OptimisticDelete(t.ctx, key, created.Revision, kubernetes.DeleteOptions{GetOnFailure: true})
	if err != nil || stale.Succeeded || string(stale.KV.Value) != "3" {
		return fmt.Errorf("deleted by an old revision: %v %v", stale, err)
	}
	if gone, err := client.OptimisticDelete(t.ctx, key, updated.Revision, kubernetes.DeleteOptions{}); err != nil || !gone.Succeeded {
		return fmt.Errorf("deleted: %v %v", gone, err)
	}
	if count, err := client.Count(t.ctx, t.prefix, kubernetes.CountOptions{}); err != nil || count != 2 {
		return fmt.Errorf("counted: %d %v", count, err)
	}
	return nil
}

// sync: the endpoints that the members tell can be dialled.
func synced(t *test) error {
	if err := t.client.Sync(t.ctx); err != nil {
		return err
	}
	for _, found := range t.client.Endpoints() {
		status, err := t.client.Status(t.ctx, found)
		if err != nil {
			return err
		}
		if status.Version == "" || status.Leader == 0 || len(status.Errors) != 0 {
			return fmt.Errorf("status of %s: %v", found, status)
		}
	}
	return t.put("a", "1")
}
