// gomemcache: the text protocol, from Go.
//
// The client knows neither passwords nor TLS and has no way to give it a connection, so it connects to
// a tunnel in this program, which logs in before it passes bytes on: the sidecar that an application
// with such a client would use.
package main

import (
	"bytes"
	"crypto/tls"
	"crypto/x509"
	"errors"
	"fmt"
	"io"
	"net"
	"os"
	"strings"
	"time"

	"github.com/bradfitz/gomemcache/memcache"
)

// Key and value together may take 1 MiB; keys here are short.
const largeBytes = 1024*1024 - 512

var errSkip = errors.New("the client has no such operation")

type login struct{ username, password string }

var (
	user   = login{os.Getenv("LARDER_USERNAME"), os.Getenv("LARDER_PASSWORD")}
	reader = login{os.Getenv("LARDER_READER_USERNAME"), os.Getenv("LARDER_READER_PASSWORD")}
)

func plain() (net.Conn, error) { return net.Dial("tcp", os.Getenv("LARDER_SERVER")) }

func secure() (net.Conn, error) {
	pem, err := os.ReadFile(os.Getenv("LARDER_TLS_CA"))
	if err != nil {
		return nil, err
	}
	roots := x509.NewCertPool()
	if !roots.AppendCertsFromPEM(pem) {
		return nil, errors.New("no certificate to trust")
	}
	return tls.Dial("tcp", os.Getenv("LARDER_TLS_SERVER"), &tls.Config{RootCAs: roots})
}

// connect starts a tunnel for one credential and returns a client that uses it.
func connect(dial func() (net.Conn, error), as login) *memcache.Client {
	listener, err := net.Listen("tcp", "127.0.0.1:0")
	if err != nil {
		panic(err)
	}
	go func() {
		for {
			client, err := listener.Accept()
			if err != nil {
				return
			}
			go tunnel(client, dial, as)
		}
	}()
	made := memcache.New(listener.Addr().String())
	made.Timeout = 10 * time.Second
	return made
}

func tunnel(client net.Conn, dial func() (net.Conn, error), as login) {
	defer client.Close()
	server, err := dial()
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		return
	}
	defer server.Close()
	fmt.Fprintf(server, "set %s 0 0 %d\r\n%s\r\n", as.username, len(as.password), as.password)
	answer := make([]byte, len("STORED\r\n"))
	if _, err := io.ReadFull(server, answer); err != nil || string(answer) != "STORED\r\n" {
		// What the server said instead is the client's answer.
		client.Write(answer)
		io.Copy(client, server)
		return
	}
	go func() {
		io.Copy(server, client)
		server.Close()
	}()
	io.Copy(client, server)
}

func equal(got, wanted interface{}) error {
	if g, w := fmt.Sprintf("%q", got), fmt.Sprintf("%q", wanted); g != w {
		return fmt.Errorf("wanted %.200s, got %.200s", w, g)
	}
	return nil
}

// all returns the first error.
func all(errs ...error) error {
	for _, err := range errs {
		if err != nil {
			return err
		}
	}
	return nil
}

func valueIs(client *memcache.Client, key, wanted string) error {
	item, err := client.Get(key)
	if err != nil {
		return fmt.Errorf("get %s: %w", key, err)
	}
	return equal(string(item.Value), wanted)
}

func gone(client *memcache.Client, key string) error {
	for deadline := time.Now().Add(10 * time.Second); time.Now().Before(deadline); time.Sleep(50 * time.Millisecond) {
		if _, err := client.Get(key); err == memcache.ErrCacheMiss {
			return nil
		}
	}
	return fmt.Errorf("%s did not expire", key)
}

func item(key, value string) *memcache.Item { return &memcache.Item{Key: key, Value: []byte(value)} }

func refusal(err error) error {
	if err == nil {
		return errors.New("was not refused")
	}
	if text := err.Error(); !strings.Contains(text, "may not") {
		return fmt.Errorf("refused without a reason: %w", err)
	}
	return nil
}

func main() {
	client := connect(plain, user)
	every := make([]byte, 256)
	for at := range every {
		every[at] = byte(at)
	}
	large := bytes.Repeat(every, 4096)[:largeBytes]
	binary := append(append([]byte{}, every...), "\r\nEND\r\n\x00\r\n"...)

	facts := []struct {
		name  string
		check func() error
	}{
		{"set", func() error { return client.Set(item("k", "v1")) }},
		{"get", func() error {
			_, err := client.Get("missing")
			return all(valueIs(client, "k", "v1"), equal(err, memcache.ErrCacheMiss))
		}},
		{"multi-get", func() error {
			keys := []string{"missing"}
			for n := 0; n < 100; n++ {
				key := fmt.Sprintf("multi-%d", n)
				keys = append(keys, key)
				if err := client.Set(item(key, "of "+key)); err != nil {
					return err
				}
			}
			items, err := client.GetMulti(keys)
			if err != nil {
				return err
			}
			for key, item := range items {
				if err := equal(string(item.Value), "of "+key); err != nil {
					return err
				}
			}
			return equal(len(items), 100)
		}},
		{"add", func() error {
			return all(client.Add(item("added", "1")),
				equal(client.Add(item("added", "2")), memcache.ErrNotStored),
				valueIs(client, "added", "1"))
		}},
		{"replace", func() error {
			return all(client.Replace(item("k", "v2")),
				equal(client.Replace(item("missing", "v")), memcache.ErrNotStored),
				valueIs(client, "k", "v2"))
		}},
		{"append", func() error { return errSkip }},
		{"prepend", func() error { return errSkip }},
		{"cas", func() error {
			first, err := client.Get("k")
			if err != nil {
				return err
			}
			first.Value = []byte("v3")
			return all(client.CompareAndSwap(first),
				equal(client.CompareAndSwap(first), memcache.ErrCASConflict),
				valueIs(client, "k", "v3"))
		}},
		{"incr", func() error {
			set := client.Set(item("n", "10"))
			number, err := client.Increment("n", 5)
			_, missing := client.Increment("missing", 1)
			return all(set, err, equal(number, 15), equal(missing, memcache.ErrCacheMiss))
		}},
		{"decr", func() error {
			number, err := client.Decrement("n", 4)
			floor, ferr := client.Decrement("n", 100)
			return all(err, ferr, equal(number, 11), equal(floor, 0))
		}},
		{"touch", func() error {
			return all(client.Set(item("t", "v")), client.Touch("t", 1),
				equal(client.Touch("missing", 1), memcache.ErrCacheMiss),
				gone(client, "t"))
		}},
		{"gat", func() error { return errSkip }},
		{"delete", func() error {
			return all(client.Delete("k"), equal(client.Delete("k"), memcache.ErrCacheMiss))
		}},
		{"flush", func() error {
			set, flush := client.Set(item("k", "v")), client.DeleteAll()
			_, err := client.Get("k")
			return all(set, flush, equal(err, memcache.ErrCacheMiss))
		}},
		{"large-value", func() error {
			return all(client.Set(item("large", string(large))), valueIs(client, "large", string(large)))
		}},
		{"too-large", func() error {
			refused := client.Set(item("large", strings.Repeat("x", 1024*1024+1)))
			if refused == nil || !strings.Contains(refused.Error(), "object too large for cache") {
				return fmt.Errorf("wanted a refusal, got %v", refused)
			}
			_, err := client.Get("large")
			return equal(err, memcache.ErrCacheMiss)
		}},
		{"expiry", func() error {
			return all(client.Set(&memcache.Item{Key: "e", Value: []byte("v"), Expiration: 1}), gone(client, "e"))
		}},
		{"binary-safe", func() error {
			return all(client.Set(item("b", string(binary))), valueIs(client, "b", string(binary)))
		}},
		{"read-only", func() error {
			set, number := client.Set(item("k", "v")), client.Set(item("n", "1"))
			limited := connect(plain, reader)
			_, incr := limited.Increment("n", 1)
			return all(set, number, valueIs(limited, "k", "v"),
				refusal(limited.Set(item("k", "w"))), refusal(limited.Add(item("new", "w"))),
				refusal(limited.Delete("k")), refusal(incr), refusal(limited.Touch("k", 1)),
				refusal(limited.DeleteAll()),
				valueIs(limited, "k", "v"), valueIs(client, "n", "1"))
		}},
		{"wrong-password", func() error {
			_, err := connect(plain, login{user.username, "not-the-password"}).Get("k")
			if err == nil || err == memcache.ErrCacheMiss {
				return fmt.Errorf("was not refused: %v", err)
			}
			return nil
		}},
		{"tls", func() error {
			through := connect(secure, user)
			return all(client.Set(item("k", "v")), valueIs(through, "k", "v"),
				through.Set(item("large", string(large))), valueIs(through, "large", string(large)))
		}},
	}
	for _, fact := range facts {
		switch err := fact.check(); {
		case err == errSkip:
			fmt.Printf("skip %s: %v\n", fact.name, err)
		case err != nil:
			fmt.Printf("FAIL %s: %v\n", fact.name, strings.ReplaceAll(err.Error(), "\n", " "))
		default:
			fmt.Printf("ok %s\n", fact.name)
		}
	}
}
