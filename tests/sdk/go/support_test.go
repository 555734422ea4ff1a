package sdk

import (
	"bytes"
	"encoding/base64"
	"encoding/json"
	"fmt"
	"net/http"
	"os"
	"strconv"
	"sync"
	"testing"
	"time"
)

const (
	// soon is for anything that the gateway answers at once.
	soon = 10 * time.Second
	// afterRestart is for coming back after a restart: the SDK waits between its attempts.
	afterRestart = 40 * time.Second
)

// environment reads what the harness (../run.py) tells its suites.
func environment(t *testing.T, name string) string {
	t.Helper()
	value := os.Getenv(name)
	if value == "" {
		t.Fatalf("%s is not set: start these tests with tests/sdk/run.py", name)
	}
	return value
}

// control asks the harness for something and returns when it is done.
func control(t *testing.T, path string, body map[string]any) map[string]any {
	t.Helper()
	encoded, err := json.Marshal(body)
	if err != nil {
		t.Fatal(err)
	}
	client := http.Client{Timeout: afterRestart}
	url := environment(t, "TIDEGATE_TEST_CONTROL") + path
	response, err := client.Post(url, "application/json", bytes.NewReader(encoded))
	if err != nil {
		t.Fatal(err)
	}
	defer response.Body.Close()
	var answer map[string]any
	if err := json.NewDecoder(response.Body).Decode(&answer); err != nil {
		t.Fatal(err)
	}
	if response.StatusCode != http.StatusOK {
		t.Fatalf("%v", answer["error"])
	}
	return answer
}

// redisPublish publishes as any backend would; it returns the number of nodes that Redis handed it to.
func redisPublish(t *testing.T, channel string, payload string) int {
	t.Helper()
	answer := control(t, "/redis/cli", map[string]any{
		"args":           []string{"PUBLISH", "push:" + channel},
		"payload_base64": base64.StdEncoding.EncodeToString([]byte(payload)),
	})
	taken, err := strconv.Atoi(fmt.Sprint(answer["stdout"]))
	if err != nil {
		t.Fatalf("redis-cli PUBLISH said %v", answer)
	}
	return taken
}

// redisBurst publishes {"n":1} to {"n":count} as fast as Redis takes them.
func redisBurst(t *testing.T, channel string, count int) {
	t.Helper()
	script := fmt.Sprintf(`for n = 1, %d do redis.call('PUBLISH', KEYS[1], '{"n":' .. n .. '}') end`, count)
	control(t, "/redis/cli", map[string]any{"args": []string{"EVAL", script, "1", "push:" + channel}})
}

// publishUntilTaken publishes until Redis has handed one to a node; that payload must then arrive.
func publishUntilTaken(t *testing.T, channel string) string {
	t.Helper()
	end := time.Now().Add(afterRestart)
	for attempt := 1; ; attempt++ {
		payload := fmt.Sprintf(`{"attempt":%d}`, attempt)
		if redisPublish(t, channel, payload) > 0 {
			return payload
		}
		if time.Now().After(end) {
			t.Fatalf("nothing subscribed to %s again", channel)
		}
	}
}

// record keeps what happened, and lets a test wait until it satisfies a condition.
type record[T any] struct {
	mutex   sync.Mutex
	items   []T
	changed chan struct{} // closed and replaced at every push
}

func newRecord[T any]() *record[T] {
	return &record[T]{changed: make(chan struct{})}
}

func (r *record[T]) push(item T) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	r.items = append(r.items, item)
	close(r.changed)
	r.changed = make(chan struct{})
}

func (r *record[T]) look() ([]T, <-chan struct{}) {
	r.mutex.Lock()
	defer r.mutex.Unlock()
	return append([]T(nil), r.items...), r.changed
}

func (r *record[T]) all() []T {
	items, _ := r.look()
	return items
}

// until waits for condition(items) and returns the items.
func (r *record[T]) until(t *testing.T, what string, deadline time.Duration, condition func([]T) bool) []T {
	t.Helper()
	timeout := time.After(deadline)
	for {
		items, changed := r.look()
		if condition(items) {
			return items
		}
		select {
		case <-changed:
		case <-timeout:
			t.Fatalf("%s: not within %v; there was %v", what, deadline, items)
		}
	}
}
