package sdk

import (
	"bytes"
	"fmt"
	"io"
	"net/http"
	"slices"
	"strings"
	"testing"

	"github.com/centrifugal/centrifuge-go"
)

// broker names the environment variables of a gateway.
type broker struct{ name, websocket, http string }

var brokers = []broker{
	{"redis", "TIDEGATE_TEST_WS", "TIDEGATE_TEST_HTTP"},
	{"embedded", "TIDEGATE_TEST_EMBEDDED_WS", "TIDEGATE_TEST_EMBEDDED_HTTP"},
}

// publish publishes {"n":first} to {"n":last} over the API, one after the other.
func (b broker) publish(t *testing.T, channel string, first, last int) {
	t.Helper()
	client := http.Client{Timeout: soon}
	for n := first; n <= last; n++ {
		body := fmt.Sprintf(`{"channel":%q,"data":%s}`, channel, numbered(n))
		request, err := http.NewRequest(http.MethodPost, environment(t, b.http)+"/api/publish", bytes.NewBufferString(body))
		must(t, err)
		request.Header.Set("X-API-Key", environment(t, "TIDEGATE_TEST_API_KEY"))
		response, err := client.Do(request)
		must(t, err)
		answer, err := io.ReadAll(response.Body)
		must(t, err)
		response.Body.Close()
		if !strings.HasPrefix(string(answer), `{"result"`) {
			t.Fatalf("publish: %s", answer)
		}
	}
}

// away gets what is published before first, and is away from first to last; what it has got in the end, and what the second
// subscribe's reply said.
func away(
	t *testing.T, b broker, format, namespace string, delta centrifuge.DeltaType, first, last int,
) ([]string, centrifuge.SubscribedEvent) {
	t.Helper()
	channel := fmt.Sprintf("%s:%s-%s", namespace, b.name, newChannel(format))
	one := connectTo(t, format, environment(t, b.websocket))
	sub := one.subscriptionWith(t, channel, centrifuge.SubscriptionConfig{Delta: delta})
	contexts := newRecord[centrifuge.SubscribedEvent]()
	sub.OnSubscribed(func(e centrifuge.SubscribedEvent) { contexts.push(e) })
	subscribed := func(times int) []centrifuge.SubscribedEvent {
		return contexts.until(t, "subscribed", soon, func(items []centrifuge.SubscribedEvent) bool { return len(items) == times })
	}
	must(t, sub.Subscribe())
	subscribed(1)
	b.publish(t, channel, 1, first-1)
	sub.receives(t, numbered(first-1))
	must(t, one.Disconnect())
	b.publish(t, channel, first, last)
	must(t, one.Connect())
	context := subscribed(2)[1]
	b.publish(t, channel, last+1, last+1)
	sub.receives(t, numbered(last+1))
	var got []string
	for _, item := range sub.publications.all() {
		got = append(got, item.data)
	}
	return got, context
}

// numbered is a payload that has most in common with all others, so that a delta is shorter.
func numbered(n int) string {
	return fmt.Sprintf(`{"n":%d,"text":"%s"}`, n, strings.Repeat("what all of them have in common, приблизительно. ", 4))
}

func allNumbered(first, last int) []string {
	var all []string
	for n := first; n <= last; n++ {
		all = append(all, numbered(n))
	}
	return all
}

func TestRecovery(t *testing.T) {
	for _, b := range brokers {
		for _, format := range []string{"json", "protobuf"} {
			t.Run(b.name+"_"+format, func(t *testing.T) {
				comesBack := func(delta centrifuge.DeltaType) func(t *testing.T) {
					return func(t *testing.T) {
						got, context := away(t, b, format, "kept", delta, 4, 53)
						equal(t, "what it got", got, allNumbered(1, 54))
						if !context.Recovered || !context.WasRecovering {
							t.Fatalf("%+v", context)
						}
					}
				}
				t.Run("who comes back gets all 50 that were published meanwhile in order", comesBack(centrifuge.DeltaTypeNone))
				t.Run("who receives deltas comes back to the same", comesBack(centrifuge.DeltaTypeFossil))
				t.Run("who comes back too late is told so and where the channel is", func(t *testing.T) {
					got, context := away(t, b, format, "brief", centrifuge.DeltaTypeNone, 4, 33)
					equal(t, "what it got", got, slices.Concat(allNumbered(1, 3), allNumbered(34, 34)))
					if context.Recovered || !context.WasRecovering || context.StreamPosition.Offset != 33 {
						t.Fatalf("%+v", context)
					}
				})
			})
		}
	}
}
