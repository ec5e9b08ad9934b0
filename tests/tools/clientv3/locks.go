package main

import (
	"context"
	"errors"
	"fmt"
	"strconv"
	"sync/atomic"
	"time"

	clientv3 "go.etcd.io/etcd/client/v3"
	"go.etcd.io/etcd/client/v3/concurrency"
	"golang.org/x/sync/errgroup"
)

// lock: of many sessions one at a time holds the mutex, and each gets its turn.
func lock(t *test) error {
	const holders, rounds = 8, 5
	var inside atomic.Int32
	counter := 0
	group, ctx := errgroup.WithContext(t.ctx)
	for range holders {
		group.Go(func() error {
			session, err := concurrency.NewSession(t.client, concurrency.WithTTL(60))
			if err != nil {
				return err
			}
			defer session.Close()
			mutex := concurrency.NewMutex(session, t.prefix+"mutex")
			for range rounds {
				if err := mutex.Lock(ctx); err != nil {
					return err
				}
				if inside.Add(1) != 1 {
					return errors.New("two hold the mutex")
				}
				counter++
				if err := owns(ctx, t.client, mutex, true); err != nil {
					return err
				}
				inside.Add(-1)
				if err := mutex.Unlock(ctx); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	if counter != holders*rounds {
		return fmt.Errorf("counted %d, want %d", counter, holders*rounds)
	}
	return tryLock(t)
}

func owns(ctx context.Context, client *clientv3.Client, mutex *concurrency.Mutex, want bool) error {
	answer, err := client.Txn(ctx).If(mutex.IsOwner()).Commit()
	if err == nil && answer.Succeeded != want {
		err = fmt.Errorf("is owner: %v, want %v", answer.Succeeded, want)
	}
	return err
}

func tryLock(t *test) error {
	first, err := concurrency.NewSession(t.client)
	if err != nil {
		return err
	}
	defer first.Close()
	second, err := concurrency.NewSession(t.client)
	if err != nil {
		return err
	}
	defer second.Close()
	held := concurrency.NewMutex(first, t.prefix+"try")
	if err := held.TryLock(t.ctx); err != nil {
		return err
	}
	if err := concurrency.NewMutex(second, t.prefix+"try").TryLock(t.ctx); err != concurrency.ErrLocked {
		return fmt.Errorf("trying a held lock: %v", err)
	}
	return held.Unlock(t.ctx)
}

// lock-lost: a holder that no longer renews loses the mutex to the next one.
func lockLost(t *test) error {
	lost, err := concurrency.NewSession(t.client, concurrency.WithTTL(2))
	if err != nil {
		return err
	}
	mutex := concurrency.NewMutex(lost, t.prefix+"mutex")
	if err := mutex.Lock(t.ctx); err != nil {
		return err
	}
	lost.Orphan()
	next, err := concurrency.NewSession(t.client)
	if err != nil {
		return err
	}
	defer next.Close()
	other := concurrency.NewMutex(next, t.prefix+"mutex")
	begun := time.Now()
	if err := other.Lock(t.ctx); err != nil {
		return err
	}
	if waited := time.Since(begun); waited < time.Second {
		return fmt.Errorf("the lock was free after %v", waited)
	}
	if err := owns(t.ctx, t.client, mutex, false); err != nil {
		return err
	}
	return other.Unlock(t.ctx)
}

// election: leaders follow one another, and an observer sees each of them and what it proclaims.
func election(t *test) error {
	const candidates = 4
	name := t.prefix + "election"
	ctx, cancel := context.WithCancel(t.ctx)
	defer cancel()
	watcher, err := concurrency.NewSession(t.client)
	if err != nil {
		return err
	}
	defer watcher.Close()
	if _, err := concurrency.NewElection(watcher, name).Leader(ctx); err != concurrency.ErrElectionNoLeader {
		return fmt.Errorf("leader of nobody: %v", err)
	}
	seen := concurrency.NewElection(watcher, name).Observe(ctx)
	acknowledged := make(chan struct{})
	group, ctx := errgroup.WithContext(ctx)
	for number := range candidates {
		group.Go(func() error { return lead(ctx, t.client, name, strconv.Itoa(number), acknowledged) })
	}
	told := map[string]bool{}
	for len(told) < 2*candidates {
		select {
		case leader, ok := <-seen:
			if !ok {
				return errors.New("the observer's channel was closed")
			}
			value := string(leader.Kvs[0].Value)
			if told[value] {
				return fmt.Errorf("%q was told twice", value)
			}
			told[value] = true
			select {
			case acknowledged <- struct{}{}:
			case <-ctx.Done():
				return group.Wait()
			}
		case <-ctx.Done():
			return fmt.Errorf("only %d of %d values were told: %w", len(told), 2*candidates, group.Wait())
		}
	}
	return group.Wait()
}

// lead campaigns, proclaims once and resigns, each when the last was seen.
func lead(ctx context.Context, client *clientv3.Client, name, me string, seen <-chan struct{}) error {
	session, err := concurrency.NewSession(client)
	if err != nil {
		return err
	}
	defer session.Close()
	mine := concurrency.NewElection(session, name)
	if err := mine.Campaign(ctx, me+" leads"); err != nil {
		return err
	}
	if err := wait(ctx, seen); err != nil {
		return err
	}
	if err := mine.Proclaim(ctx, me+" still leads"); err != nil {
		return err
	}
	if err := wait(ctx, seen); err != nil {
		return err
	}
	leader, err := mine.Leader(ctx)
	if err != nil {
		return err
	}
	if string(leader.Kvs[0].Key) != mine.Key() || leader.Kvs[0].CreateRevision != mine.Rev() {
		return fmt.Errorf("%s leads, not %s", leader.Kvs[0].Key, mine.Key())
	}
	if err := mine.Resign(ctx); err != nil {
		return err
	}
	if err := mine.Proclaim(ctx, "deposed"); err != concurrency.ErrElectionNotLeader {
		return fmt.Errorf("proclaimed by one who resigned: %v", err)
	}
	return nil
}

func wait(ctx context.Context, word <-chan struct{}) error {
	select {
	case <-word:
		return nil
	case <-ctx.Done():
		return ctx.Err()
	}
}

// stm: transfers between accounts at every level of isolation that forbids losing them.
func stm(t *test) error {
	const accounts, clients, transfers = 4, 6, 15
	for number := range accounts {
		if err := t.put(strconv.Itoa(number), "100"); err != nil {
			return err
		}
	}
	levels := []concurrency.Isolation{
		concurrency.SerializableSnapshot, concurrency.Serializable, concurrency.RepeatableReads}
	group, ctx := errgroup.WithContext(t.ctx)
	for me := range clients {
		group.Go(func() error {
			for round := range transfers {
				from, to := t.prefix+strconv.Itoa((me+round)%accounts), t.prefix+strconv.Itoa((me+2*round+1)%accounts)
				move := func(s concurrency.STM) error {
					if from == to {
						return nil
					}
					have, _ := strconv.Atoi(s.Get(from))
					there, _ := strconv.Atoi(s.Get(to))
					s.Put(from, strconv.Itoa(have-1))
					s.Put(to, strconv.Itoa(there+1))
					return nil
				}
				options := []concurrency.STMOption{
					concurrency.WithAbortContext(ctx), concurrency.WithIsolation(levels[round%len(levels)])}
				if round%2 == 0 {
					options = append(options, concurrency.WithPrefetch(from, to))
				}
				if _, err := concurrency.NewSTM(t.client, move, options...); err != nil {
					return err
				}
			}
			return nil
		})
	}
	if err := group.Wait(); err != nil {
		return err
	}
	found, err := t.client.Get(t.ctx, t.prefix, clientv3.WithPrefix())
	if err != nil {
		return err
	}
	sum := 0
	for _, kv := range found.Kvs {
		have, err := strconv.Atoi(string(kv.Value))
		if err != nil {
			return err
		}
		sum += have
	}
	if len(found.Kvs) != accounts || sum != 100*accounts {
		return fmt.Errorf("%d accounts hold %d", len(found.Kvs), sum)
	}
	return nil
}
