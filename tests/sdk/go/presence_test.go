package sdk

import (
	"context"
	"fmt"
	"maps"
	"slices"
	"testing"
	"time"

	"github.com/centrifugal/centrifuge-go"
)

// gone is how long whoever has gone may still be listed.
const gone = 2 * time.Second

// member is a client that is subscribed, with who came and went while it was.
type member struct {
	recordedClient
	sub  recordedSubscription
	told *record[string]
}

func newMember(t *testing.T, b broker, format, channel string, joinLeave bool) member {
	t.Helper()
	one := connectTo(t, format, environment(t, b.websocket))
	m := member{one, one.subscriptionWith(t, channel, centrifuge.SubscriptionConfig{JoinLeave: joinLeave}), newRecord[string]()}
	m.sub.OnJoin(func(e centrifuge.JoinEvent) { m.told.push("+" + e.Client) })
	m.sub.OnLeave(func(e centrifuge.LeaveEvent) { m.told.push("-" + e.Client) })
	must(t, m.sub.Subscribe())
	m.sub.states.until(t, "subscribed", soon, has("subscribed", 1))
	return m
}

func (m member) listed(t *testing.T) []string {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	defer cancel()
	result, err := m.sub.Presence(ctx)
	must(t, err)
	return slices.Sorted(maps.Keys(result.Clients))
}

func TestPresence(t *testing.T) {
	for _, b := range brokers {
		for _, format := range []string{"json", "protobuf"} {
			t.Run(b.name+"_"+format, func(t *testing.T) {
				room := func() string { return fmt.Sprintf("room:%s-%s", b.name, newChannel(format)) }
				t.Run("whoever is subscribed is listed and counted and gone within 2 s", func(t *testing.T) {
					channel := room()
					stays, goes := newMember(t, b, format, channel, false), newMember(t, b, format, channel, false)
					all := []string{stays.id(), goes.id()}
					slices.Sort(all)
					equal(t, "who is listed", stays.listed(t), all)
					ctx, cancel := context.WithTimeout(context.Background(), soon)
					defer cancel()
					stats, err := stays.sub.PresenceStats(ctx)
					must(t, err)
					equal(t, "clients and users", []int{stats.NumClients, stats.NumUsers}, []int{2, 1})
					must(t, goes.Disconnect())
					for end := time.Now().Add(gone); len(stays.listed(t)) > 1; {
						if time.Now().After(end) {
							t.Fatalf("still listed: %v", stays.listed(t))
						}
					}
					equal(t, "who is left", stays.listed(t), []string{stays.id()})
				})
				t.Run("who comes and goes is told to those who asked and to nobody else", func(t *testing.T) {
					channel := room()
					asked, other := newMember(t, b, format, channel, true), newMember(t, b, format, channel, false)
					goes := newMember(t, b, format, channel, false)
					id := goes.id()
					must(t, goes.Disconnect())
					expected := []string{"+" + asked.id(), "+" + other.id(), "+" + id, "-" + id}
					told := asked.told.until(t, "all that happened", soon, func(items []string) bool {
						return len(items) >= len(expected)
					})
					equal(t, "what was told", told, expected)
					equal(t, "what the other was told", other.told.all(), nil)
				})
			})
		}
	}
}
