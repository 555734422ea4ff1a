// Package sdk holds the Go SDK against a real gateway and a real Redis, in both wire formats.
package sdk

import (
	"context"
	"errors"
	"fmt"
	"slices"
	"strings"
	"sync/atomic"
	"testing"
	"time"

	"github.com/centrifugal/centrifuge-go"
)

// event is a change of state of a client or a subscription.
type event struct {
	state string
	code  uint32
	id    string // the client's, when connected
}

// publication is what the application sees of one.
type publication struct {
	data      string
	publisher string // client id, or "none"
}

// recordedClient is a client with its states on record.
type recordedClient struct {
	*centrifuge.Client
	states *record[event]
}

// recordedSubscription is a subscription with its publications and states on record.
type recordedSubscription struct {
	*centrifuge.Subscription
	publications *record[publication]
	states       *record[event]
}

func connect(t *testing.T, format string) recordedClient {
	t.Helper()
	return connectTo(t, format, environment(t, "TIDEGATE_TEST_WS"))
}

func connectTo(t *testing.T, format, endpoint string) recordedClient {
	t.Helper()
	config := centrifuge.Config{MinReconnectDelay: 50 * time.Millisecond, MaxReconnectDelay: 500 * time.Millisecond}
	construct := centrifuge.NewJsonClient
	if format == "protobuf" {
		construct = centrifuge.NewProtobufClient
	}
	one := recordedClient{construct(endpoint, config), newRecord[event]()}
	one.OnConnecting(func(e centrifuge.ConnectingEvent) { one.states.push(event{state: "connecting", code: e.Code}) })
	one.OnConnected(func(e centrifuge.ConnectedEvent) { one.states.push(event{state: "connected", id: e.ClientID}) })
	one.OnDisconnected(func(e centrifuge.DisconnectedEvent) {
		one.states.push(event{state: "disconnected", code: e.Code})
	})
	t.Cleanup(one.Close)
	if err := one.Connect(); err != nil {
		t.Fatal(err)
	}
	one.states.until(t, "connected", soon, has("connected", 1))
	return one
}

// id is the client id of the newest connection.
func (c recordedClient) id() string {
	events := c.states.all()
	return events[len(events)-1].id
}

func (c recordedClient) subscription(t *testing.T, channel string) recordedSubscription {
	t.Helper()
	return c.subscriptionWith(t, channel, centrifuge.SubscriptionConfig{})
}

func (c recordedClient) subscriptionWith(
	t *testing.T, channel string, config centrifuge.SubscriptionConfig,
) recordedSubscription {
	t.Helper()
	config.MinResubscribeDelay, config.MaxResubscribeDelay = 50*time.Millisecond, 500*time.Millisecond
	sub, err := c.NewSubscription(channel, config)
	if err != nil {
		t.Fatal(err)
	}
	one := recordedSubscription{sub, newRecord[publication](), newRecord[event]()}
	one.OnSubscribing(func(centrifuge.SubscribingEvent) { one.states.push(event{state: "subscribing"}) })
	one.OnSubscribed(func(centrifuge.SubscribedEvent) { one.states.push(event{state: "subscribed"}) })
	one.OnUnsubscribed(func(e centrifuge.UnsubscribedEvent) {
		one.states.push(event{state: "unsubscribed", code: e.Code})
	})
	one.OnPublication(func(e centrifuge.PublicationEvent) {
		publisher := "none"
		if e.Info != nil {
			publisher = e.Info.Client
		}
		one.publications.push(publication{string(e.Data), publisher})
	})
	return one
}

func (c recordedClient) subscribe(t *testing.T, channel string) recordedSubscription {
	t.Helper()
	one := c.subscription(t, channel)
	if err := one.Subscribe(); err != nil {
		t.Fatal(err)
	}
	one.states.until(t, "subscribed", soon, has("subscribed", 1))
	return one
}

// receives waits for a publication with this data.
func (s recordedSubscription) receives(t *testing.T, data string) {
	t.Helper()
	s.publications.until(t, "the publication "+data, soon, func(items []publication) bool {
		return slices.ContainsFunc(items, func(item publication) bool { return item.data == data })
	})
}

// has tells whether a state was entered so many times.
func has(state string, times int) func([]event) bool {
	return func(events []event) bool { return len(in(events, state)) == times }
}

func in(events []event, state string) []event {
	return slices.DeleteFunc(slices.Clone(events), func(e event) bool { return e.state != state })
}

func states(events []event) []string {
	names := make([]string, 0, len(events))
	for _, e := range events {
		names = append(names, e.state)
	}
	return names
}

func equal[T comparable](t *testing.T, what string, got, want []T) {
	t.Helper()
	if !slices.Equal(got, want) {
		t.Fatalf("%s: %v instead of %v", what, got, want)
	}
}

// refused demands an error reply with this code.
func refused(t *testing.T, err error, code uint32) {
	t.Helper()
	var reply *centrifuge.Error
	if !errors.As(err, &reply) || reply.Code != code {
		t.Fatalf("not refused with %d but answered with %v", code, err)
	}
}

func background(t *testing.T) context.Context {
	t.Helper()
	ctx, cancel := context.WithTimeout(context.Background(), soon)
	t.Cleanup(cancel)
	return ctx
}

var channels atomic.Int64

func newChannel(format string) string {
	return fmt.Sprintf("go-%s-%d", format, channels.Add(1))
}

func must(t *testing.T, err error) {
	t.Helper()
	if err != nil {
		t.Fatal(err)
	}
}

// Order: the claims that restart a server come last.
var claims = []struct {
	text string
	test func(t *testing.T, format string)
}{
	{"connects without a token and is given a client id", func(t *testing.T, format string) {
		if one := connect(t, format); len(one.id()) != 36 {
			t.Fatalf("client id %q", one.id())
		}
	}},
	{"a redis-cli PUBLISH arrives", func(t *testing.T, format string) {
		channel := newChannel(format)
		sub := connect(t, format).subscribe(t, channel)
		if taken := redisPublish(t, channel, `{"n":1}`); taken != 1 {
			t.Fatalf("%d nodes took it", taken)
		}
		sub.receives(t, `{"n":1}`)
	}},
	{"a burst of 500 arrives whole and in order", func(t *testing.T, format string) {
		channel := newChannel(format)
		sub := connect(t, format).subscribe(t, channel)
		redisBurst(t, channel, 500)
		all := func(items []publication) bool { return len(items) >= 500 }
		var got, want []string
		for n, item := range sub.publications.until(t, "500 publications", soon, all) {
			got = append(got, item.data)
			want = append(want, fmt.Sprintf(`{"n":%d}`, n+1))
		}
		equal(t, "the burst", got, want[:500])
	}},
	{"text that is no JSON arrives as text", func(t *testing.T, format string) {
		channel := newChannel(format)
		sub := connect(t, format).subscribe(t, channel)
		redisPublish(t, channel, `plain text`)
		sub.receives(t, map[string]string{"json": `"plain text"`, "protobuf": `plain text`}[format])
	}},
	{"a publisher that is subscribed gets its publication exactly once, byte for byte, with its info",
		func(t *testing.T, format string) {
			one := connect(t, format)
			sub := one.subscribe(t, newChannel(format))
			for _, data := range []string{`{"mine":1, "kept": [1.50, "\u00e4"]}`, `{"mine":2}`} {
				_, err := sub.Publish(background(t), []byte(data))
				must(t, err)
			}
			sub.receives(t, `{"mine":2}`)
			equal(t, "publications", sub.publications.all(), []publication{
				{`{"mine":1, "kept": [1.50, "\u00e4"]}`, one.id()}, {`{"mine":2}`, one.id()},
			})
		}},
	{"another client gets the publication, with the publisher's info", func(t *testing.T, format string) {
		channel := newChannel(format)
		publisher := connect(t, format)
		sub := connect(t, format).subscribe(t, channel)
		_, err := publisher.Publish(background(t), channel, []byte(`{"from":"afar"}`))
		must(t, err)
		sub.receives(t, `{"from":"afar"}`)
		equal(t, "publications", sub.publications.all(), []publication{{`{"from":"afar"}`, publisher.id()}})
	}},
	{"nothing arrives after unsubscribe, and again after a new subscribe", func(t *testing.T, format string) {
		channel, witnessed := newChannel(format), newChannel(format)
		one := connect(t, format)
		left, witness := one.subscribe(t, channel), one.subscribe(t, witnessed)
		must(t, left.Unsubscribe())
		// The RPC's answer says that the unsubscribe before it took effect.
		_, err := one.RPC(background(t), "any", []byte(`{}`))
		refused(t, err, 108)
		redisPublish(t, channel, `{"late":true}`)
		redisPublish(t, witnessed, `{"late":true}`)
		witness.receives(t, `{"late":true}`)
		equal(t, "after the unsubscribe", left.publications.all(), nil)
		must(t, left.Subscribe())
		left.states.until(t, "subscribed again", soon, has("subscribed", 2))
		redisPublish(t, channel, `{"back":true}`)
		left.receives(t, `{"back":true}`)
		equal(t, "after the new subscribe", left.publications.all(), []publication{{`{"back":true}`, "none"}})
	}},
	{"rpc, history and presence are answered with 108", func(t *testing.T, format string) {
		one := connect(t, format)
		sub := one.subscribe(t, newChannel(format))
		_, err := one.RPC(background(t), "any", []byte(`{}`))
		refused(t, err, 108)
		_, err = sub.History(background(t), centrifuge.WithHistoryLimit(1))
		refused(t, err, 108)
		_, err = sub.Presence(background(t))
		refused(t, err, 108)
	}},
	{"a name in no namespace is refused with 102, one of 300 bytes with 107", func(t *testing.T, format string) {
		one := connect(t, format)
		for name, code := range map[string]uint32{"no-such-namespace:news": 102, strings.Repeat("x", 300): 107} {
			sub := one.subscription(t, name)
			must(t, sub.Subscribe())
			events := sub.states.until(t, "refused", soon, has("unsubscribed", 1))
			if got := in(events, "unsubscribed")[0].code; got != code {
				t.Fatalf("refused with %d instead of %d", got, code)
			}
		}
		equal(t, "the connection goes on", states(one.states.all()), []string{"connecting", "connected"})
	}},
	{"a message to a server that takes none ends the connection with 3508, for good", func(t *testing.T, format string) {
		one := connect(t, format)
		must(t, one.Send(background(t), []byte(`{}`)))
		events := one.states.until(t, "disconnected", soon, has("disconnected", 1))
		if code := in(events, "disconnected")[0].code; code != 3508 {
			t.Fatalf("disconnected with %d", code)
		}
	}},
	{"an orderly restart of the gateway closes with 3001, and the client comes back",
		func(t *testing.T, format string) {
			one := comesBack(t, format, "/gateway/restart")
			again := in(one.states.all(), "connecting")[1:]
			if !slices.ContainsFunc(again, func(e event) bool { return e.code == 3001 }) {
				t.Fatalf("no 3001 among %v", again)
			}
		}},
	{"a crash of the gateway is survived", func(t *testing.T, format string) {
		comesBack(t, format, "/gateway/crash")
	}},
	{"a restart of Redis leaves the session connected, and its subscription receives again",
		func(t *testing.T, format string) {
			channel := newChannel(format)
			one := connect(t, format)
			sub := one.subscribe(t, channel)
			control(t, "/redis/restart", nil)
			sub.receives(t, publishUntilTaken(t, channel))
			equal(t, "states of the client", states(one.states.all()), []string{"connecting", "connected"})
			equal(t, "states of the subscription", states(sub.states.all()), []string{"subscribing", "subscribed"})
		}},
}

// comesBack demands that once the SDK has subscribed a second time, what is published arrives.
func comesBack(t *testing.T, format, whatHappens string) recordedClient {
	t.Helper()
	channel := newChannel(format)
	one := connect(t, format)
	sub := one.subscribe(t, channel)
	control(t, whatHappens, nil)
	sub.states.until(t, "subscribed again", afterRestart, has("subscribed", 2))
	if taken := redisPublish(t, channel, `{"again":true}`); taken != 1 {
		t.Fatalf("%d nodes took it", taken)
	}
	sub.receives(t, `{"again":true}`)
	return one
}

func TestSDK(t *testing.T) {
	for _, format := range []string{"json", "protobuf"} {
		t.Run(format, func(t *testing.T) {
			for _, claim := range claims {
				t.Run(claim.text, func(t *testing.T) { claim.test(t, format) })
			}
		})
	}
}
