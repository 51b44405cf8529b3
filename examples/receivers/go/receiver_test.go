package webhooks

import (
	"bytes"
	"encoding/json"
	"net/http"
	"os"
	"path/filepath"
	"strings"
	"testing"
	"time"
)

// Every field of a session event has a place in the types, and every sample is read.
func TestSamples(t *testing.T) {
	samples, err := filepath.Glob("../../../schema/examples/*.json")
	if err != nil || len(samples) < 10 {
		t.Fatal(err, samples)
	}
	for _, sample := range samples {
		body, err := os.ReadFile(sample)
		if err != nil {
			t.Fatal(err)
		}
		var event Event
		if err := json.Unmarshal(body, &event); err != nil {
			t.Fatal(sample, err)
		}
		if strings.HasPrefix(event.Type, "session.") {
			strict := json.NewDecoder(bytes.NewReader(event.Data))
			strict.DisallowUnknownFields()
			if err := strict.Decode(&SessionData{}); err != nil {
				t.Error(sample, err)
			}
		}
		entry, err := Read(body)
		if err != nil {
			t.Fatal(sample, err)
		}
		if (entry != nil) != (event.Type == "session.end") {
			t.Error(sample, entry)
		}
		if entry != nil && entry.LowerBound != strings.Contains(string(body), `"accuracy": "lower_bound"`) {
			t.Error(sample, entry.LowerBound)
		}
	}
}

// What `turnhook endpoints test` sends is billed to nobody.
func TestTrial(t *testing.T) {
	entry, err := Read([]byte(`{"type": "session.end", "test": true, "data": {"usage": {"billable_bytes": 7}}}`))
	if err != nil || entry != nil {
		t.Error(entry, err)
	}
}

// As in the documentation of Standard Webhooks.
func TestSignature(t *testing.T) {
	key, err := Key("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw")
	if err != nil {
		t.Fatal(err)
	}
	body := []byte(`{"test": 2432232314}`)
	header := http.Header{}
	header.Set("webhook-id", "msg_p5jXN8AQM9LWM0D4loKWxJek")
	header.Set("webhook-timestamp", "1614265330")
	header.Set("webhook-signature", "v1,bm9ldHUjKzFob2VudXRob2VodWUzMjRvdWVvdW9ldQo= v1,g0hM9SsE+OTPJTGt/tmIKtSyZlE3uFJELVlNIOLJ1OE=")
	now := time.Unix(1614265330, 0)
	id, err := Verify([][]byte{[]byte("another"), key}, header, body, now)
	if err != nil || id != "msg_p5jXN8AQM9LWM0D4loKWxJek" {
		t.Error(id, err)
	}
	if _, err := Verify([][]byte{key}, header, append(body, ' '), now); err == nil {
		t.Error("another body")
	}
	if _, err := Verify([][]byte{key}, header, body, now.Add(time.Hour)); err == nil {
		t.Error("an hour later")
	}
}
