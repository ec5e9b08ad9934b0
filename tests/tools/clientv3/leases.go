package main

import (
	"errors"
	"fmt"
	"slices"
	"time"

	"go.etcd.io/etcd/api/v3/v3rpc/rpctypes"
	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
)

// lease: one that is kept alive outlives its TTL many times, one that is not takes its keys along.
func lease(t *test) error {
	kept, err := t.client.Grant(t.ctx, 2)
	if err != nil {
		return err
	}
	renewals, err := t.client.KeepAlive(t.ctx, kept.ID)
	if err != nil {
		return err
	}
	renewed := 0
	go func() {
		for range renewals {
		}
	}()
	if err := t.put("kept", "k", clientv3.WithLease(kept.ID)); err != nil {
		return err
	}
	watched := t.client.Watch(t.ctx, t.prefix+"lost", clientv3.WithFilterPut(), clientv3.WithPrevKV())
	for renewed = range 3 {
		if err := expires(t, watched); err != nil {
			return fmt.Errorf("round %d: %v", renewed, err)
		}
		if err := t.expect("kept", "k"); err != nil {
			return err
		}
	}
	left, err := t.client.TimeToLive(t.ctx, kept.ID, clientv3.WithAttachedKeys())
	if err != nil {
		return err
	}
	if left.GrantedTTL != 2 || len(left.Keys) != 1 || string(left.Keys[0]) != t.prefix+"kept" {
		return fmt.Errorf("time to live: %+v", left)
	}
	if _, err := t.client.Revoke(t.ctx, kept.ID); err != nil {
		return err
	}
	return t.expect("kept", "")
}

// expires lets a lease end by itself, not early, and looks for it afterwards.
func expires(t *test, watched clientv3.WatchChan) error {
	lost, err := t.client.Grant(t.ctx, 2)
	if err != nil {
		return err
	}
	begun := time.Now()
	if err := t.put("lost", "l", clientv3.WithLease(lost.ID)); err != nil {
		return err
	}
	told, ok := <-watched
	if !ok || told.Err() != nil || len(told.Events) != 1 {
		return fmt.Errorf("watched: %v %v", told.Events, told.Err())
	}
	if lived := time.Since(begun); lived < 1900*time.Millisecond {
		return fmt.Errorf("lived for %v", lived)
	}
	event := told.Events[0]
	if event.Type != clientv3.EventTypeDelete || string(event.PrevKv.Value) != "l" || event.PrevKv.Lease != int64(lost.ID) {
		return fmt.Errorf("expired: %v", event)
	}
	if left, err := t.client.TimeToLive(t.ctx, lost.ID); err != nil || left.TTL != -1 {
		return fmt.Errorf("time to live: %v %v", left, err)
	}
	if _, err := t.client.KeepAliveOnce(t.ctx, lost.ID); !errors.Is(err, rpctypes.ErrLeaseNotFound) {
		return fmt.Errorf("renewed: %v", err)
	}
	return nil
}

// session: closing one revokes its lease, and one whose lease is revoked is done.
func session(t *test) error {
	closed, err := concurrency.NewSession(t.client)
	if err != nil {
		return err
	}
	if err := t.put("closed", "c", clientv3.WithLease(closed.Lease())); err != nil {
		return err
	}
	if err := closed.Close(); err != nil {
		return err
	}
	if err := t.expect("closed", ""); err != nil {
		return err
	}
	revoked, err := concurrency.NewSession(t.client, concurrency.WithTTL(3))
	if err != nil {
		return err
	}
	listed, err := t.client.Leases(t.ctx)
	if err != nil {
		return err
	}
	has := func(id clientv3.LeaseID) bool {
		return slices.ContainsFunc(listed.Leases, func(l clientv3.LeaseStatus) bool { return l.ID == id })
	}
	if has(closed.Lease()) || !has(revoked.Lease()) {
		return fmt.Errorf("leases: %v", listed.Leases)
	}
	if _, err := t.client.Revoke(t.ctx, revoked.Lease()); err != nil {
		return err
	}
	select {
	case <-revoked.Done():
		return nil
	case <-t.ctx.Done():
		return errors.New("the session of a revoked lease goes on")
	}
}
