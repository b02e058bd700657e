// Command work drives lib/pq: simple, extended, prepared, binary parameters, COPY, LISTEN, cancel by context.
package main

import (
	"context"
	"crypto/sha256"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/lib/pq"
)

func must(err error) {
	if err != nil {
		fmt.Println("failed:", err)
		os.Exit(1)
	}
}

func attempt(what string, action func() (any, error)) {
	result, err := action()
	var server *pq.Error
	switch {
	case errors.As(err, &server):
		fmt.Println(what, "-> error", server.Code, server.Severity, server.Message, server.Constraint)
	case err != nil:
		fmt.Println(what, "-> error", err)
	default:
		fmt.Println(what, "->", result)
	}
}

// connect returns a database that keeps exactly one stream, and that stream.
func connect(options string) (*sql.DB, *sql.Conn) {
	db, err := sql.Open("postgres", "application_name=driver-go "+options)
	must(err)
	db.SetMaxOpenConns(1)
	conn, err := db.Conn(context.Background())
	must(err)
	return db, conn
}

func one(conn *sql.Conn, text string, values ...any) (any, error) {
	var result any
	err := conn.QueryRowContext(context.Background(), text, values...).Scan(&result)
	if bytes, ok := result.([]byte); ok {
		result = string(bytes)
	}
	return result, err
}

func statements(ctx context.Context, conn *sql.Conn) {
	fmt.Println("== statements")
	_, err := conn.ExecContext(ctx, "SET client_min_messages = warning; DROP TABLE IF EXISTS go_items; CREATE TABLE go_items (id int PRIMARY KEY, name text, ratio float8, body bytea, tags text[])")
	must(err)
	for n := 0; n < 5; n++ {
		_, err = conn.ExecContext(ctx, "INSERT INTO go_items VALUES ($1, $2, $3, $4, $5)",
			n, fmt.Sprintf("item %d 'ü'", n), float64(n)+0.5, []byte{0, byte(n), 255}, pq.Array([]string{"a", "b,c", `d"e`}))
		must(err)
	}
	find, err := conn.PrepareContext(ctx, "SELECT name, ratio, body, tags FROM go_items WHERE id = $1")
	must(err)
	for n := 0; n < 6; n++ {
		var name string
		var ratio float64
		var body []byte
		var tags []string
		attempt("find", func() (any, error) {
			err := find.QueryRowContext(ctx, n).Scan(&name, &ratio, &body, pq.Array(&tags))
			return fmt.Sprint(name, ratio, body, tags), err
		})
	}
	must(find.Close())
	attempt("null", func() (any, error) { return one(conn, "SELECT $1::text IS NULL", nil) })
	attempt("several", func() (any, error) {
		rows, err := conn.QueryContext(ctx, "SELECT 1; SELECT 2; SELECT 'three'")
		if err != nil {
			return nil, err
		}
		defer rows.Close()
		seen := ""
		for more := true; more; more = rows.NextResultSet() {
			for rows.Next() {
				var value string
				must(rows.Scan(&value))
				seen += value + ";"
			}
		}
		return seen, rows.Err()
	})
	attempt("empty", func() (any, error) { r, err := conn.ExecContext(ctx, ""); _ = r; return "nothing", err })
	attempt("syntax", func() (any, error) { return one(conn, "SELEC 1") })
	attempt("syntax, extended", func() (any, error) { return one(conn, "SELEC $1", 1) })
	attempt("bad value", func() (any, error) { return one(conn, "SELECT $1::int", "seven") })
	attempt("division", func() (any, error) { return one(conn, "SELECT 1 / $1::int", 0) })
	attempt("next", func() (any, error) { return one(conn, "SELECT $1 || $2", "a", "b") })
}

func transactions(ctx context.Context, conn *sql.Conn) {
	fmt.Println("== transactions")
	tx, err := conn.BeginTx(ctx, nil)
	must(err)
	attempt("violation", func() (any, error) { return tx.ExecContext(ctx, "INSERT INTO go_items (id) VALUES ($1)", 1) })
	attempt("after it", func() (any, error) { return tx.ExecContext(ctx, "SELECT $1::int", 1) })
	must(tx.Rollback())
	tx, err = conn.BeginTx(ctx, &sql.TxOptions{Isolation: sql.LevelSerializable, ReadOnly: true})
	must(err)
	attempt("read only", func() (any, error) { return tx.ExecContext(ctx, "DELETE FROM go_items") })
	must(tx.Rollback())
}

func copies(ctx context.Context, conn *sql.Conn) {
	fmt.Println("== copy")
	run := func(rows int, bad bool) (any, error) {
		tx, err := conn.BeginTx(ctx, nil)
		must(err)
		copy, err := tx.PrepareContext(ctx, pq.CopyIn("go_items", "id", "name"))
		must(err)
		for n := 0; n < rows; n++ {
			if _, err = copy.ExecContext(ctx, 100+n, fmt.Sprintf("copied\t%d", n)); err != nil {
				break
			}
		}
		if err == nil && bad {
			_, err = copy.ExecContext(ctx, "not a number", "bad")
		}
		if err == nil {
			_, err = copy.ExecContext(ctx)
		}
		if closing := copy.Close(); err == nil {
			err = closing
		}
		if err != nil {
			must(tx.Rollback())
			return nil, err
		}
		return rows, tx.Commit()
	}
	attempt("in", func() (any, error) { return run(3000, false) })
	attempt("bad data", func() (any, error) { return run(0, true) })
	attempt("count", func() (any, error) { return one(conn, "SELECT count(*) FROM go_items") })
}

func cancelling(ctx context.Context, conn *sql.Conn) {
	fmt.Println("== cancel")
	pid, err := one(conn, "SELECT pg_backend_pid()")
	must(err)
	db, watcher := connect("")
	short, cancel := context.WithCancel(ctx)
	go func() {
		defer cancel()
		for seen := any(int64(0)); seen == any(int64(0)); {
			var err error
			seen, err = one(watcher, "SELECT count(*) FROM pg_stat_activity WHERE pid = $1 AND state = 'active' AND wait_event = 'PgSleep'", pid)
			must(err)
		}
	}()
	_, err = conn.ExecContext(short, "SELECT pg_sleep(60)")
	var server *pq.Error
	fmt.Println("cancelled", errors.As(err, &server) && server.Code == "57014")
	must(watcher.Close())
	must(db.Close())
}

func listening(conn *sql.Conn) {
	fmt.Println("== listen")
	listener := pq.NewListener("application_name=driver-go", time.Second, time.Minute, nil)
	must(listener.Listen("go_news"))
	attempt("notify", func() (any, error) { return one(conn, "SELECT pg_notify('go_news', $1)", "payload") })
	note := <-listener.Notify
	fmt.Println(note.Channel, note.Extra)
	must(listener.Close())
}

func main() {
	ctx := context.Background()
	for _, options := range []string{"", "binary_parameters=yes"} {
		fmt.Println("====", options)
		db, conn := connect(options)
		statements(ctx, conn)
		transactions(ctx, conn)
		copies(ctx, conn)
		listening(conn)
		rows, err := conn.QueryContext(ctx, "SELECT n, repeat(md5(n::text), 10) FROM generate_series(1, $1) n", 20000)
		must(err)
		digest := sha256.New()
		for rows.Next() {
			var n int
			var text string
			must(rows.Scan(&n, &text))
			fmt.Fprintln(digest, n, text)
		}
		must(rows.Err())
		fmt.Printf("big %x\n", digest.Sum(nil))
		_, err = conn.ExecContext(ctx, "DROP TABLE go_items")
		must(err)
		cancelling(ctx, conn)
		// lib/pq gives a stream up when its context is cancelled, so there is nothing left to close in order.
		_ = conn.Close()
		_ = db.Close()
	}
}
