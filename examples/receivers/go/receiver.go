// Package webhooks has what a receiver of turnhook's webhooks is made of: the check of the signature, and what an event adds
// to a bill. The types of webhooks.go are made of turnhook's schema.
package webhooks

import (
	"crypto/hmac"
	"crypto/sha256"
	"encoding/base64"
	"encoding/json"
	"errors"
	"fmt"
	"net/http"
	"strconv"
	"strings"
	"time"
)

// Tolerance is how far a request's time may be from this clock: an older one was sent again by somebody who recorded it.
const Tolerance = 5 * time.Minute

// Event is the body of a webhook. There may be more types in time: those that are not known are answered with 2xx.
type Event struct {
	Type      string    `json:"type"`
	Timestamp time.Time `json:"timestamp"`
	// In what is sent to try an endpoint, and in nothing else.
	Test bool            `json:"test"`
	Data json.RawMessage `json:"data"`
}

// Entry is what an event adds to the bill of a user of a realm. Enter it in one transaction with the id of the event, under
// a unique key, and answer after that.
type Entry struct {
	Realm, RealmBase64, User, UserBase64 *string
	// A session that continues another one corrects it: its bytes count, it is not a session more.
	Sessions      int
	BillableBytes int64
	LowerBound    bool
}

// Key makes the key of a secret as `turnhook secret` prints it.
func Key(secret string) ([]byte, error) {
	encoded := strings.TrimPrefix(secret, "whsec_")
	if encoded == secret {
		return nil, errors.New("a secret starts with whsec_ (make one with `turnhook secret`)")
	}
	return base64.StdEncoding.DecodeString(encoded)
}

// Verify checks the signature over the raw body, by any of the keys, and gives the id of the event. Answer 401 where it fails.
func Verify(keys [][]byte, header http.Header, body []byte, now time.Time) (string, error) {
	id, timestamp := header.Get("webhook-id"), header.Get("webhook-timestamp")
	seconds, err := strconv.ParseInt(timestamp, 10, 64)
	if id == "" || err != nil {
		return "", errors.New("webhook-id or webhook-timestamp is missing")
	}
	if off := now.Sub(time.Unix(seconds, 0)); off > Tolerance || off < -Tolerance {
		return "", errors.New("the timestamp is too far from this clock")
	}
	for _, signature := range strings.Split(header.Get("webhook-signature"), " ") {
		version, encoded, _ := strings.Cut(signature, ",")
		given, err := base64.StdEncoding.DecodeString(encoded)
		if version != "v1" || err != nil {
			continue
		}
		for _, key := range keys {
			mac := hmac.New(sha256.New, key)
			fmt.Fprintf(mac, "%s.%s.", id, timestamp)
			mac.Write(body)
			if hmac.Equal(given, mac.Sum(nil)) {
				return id, nil
			}
		}
	}
	return "", errors.New("no signature fits")
}

// Read gives what a body adds to a bill: nil if it is not the end of a session.
func Read(body []byte) (*Entry, error) {
	var event Event
	if err := json.Unmarshal(body, &event); err != nil {
		return nil, err
	}
	// What `turnhook endpoints test` sends is billed to nobody.
	if event.Type != "session.end" || event.Test {
		return nil, nil
	}
	var data SessionData
	if err := json.Unmarshal(event.Data, &data); err != nil {
		return nil, err
	}
	entry := Entry{
		Realm: data.Realm, RealmBase64: data.RealmBase64, User: data.User, UserBase64: data.UserBase64,
		BillableBytes: data.Usage.BillableBytes,
		LowerBound:    data.Accuracy != nil && *data.Accuracy == "lower_bound",
	}
	if data.Continues == nil {
		entry.Sessions = 1
	}
	return &entry, nil
}
