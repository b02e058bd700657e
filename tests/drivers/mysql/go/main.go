// go-sql-driver/mysql: text, prepared in binary, transactions, cancel by context.
package main

import (
	"context"
	"crypto/tls"
	"crypto/x509"
	"database/sql"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/go-sql-driver/mysql"
)

func must(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func attempt(what string, err error) {
	var server *mysql.MySQLError
	switch {
	case err == nil:
		fmt.Println(what, "-> done")
	case errors.As(err, &server):
		fmt.Println(what, "-> error", server.Number, server.Message)
	default:
		fmt.Println(what, "-> error", err)
	}
}

func rows(rows *sql.Rows, err error) {
	must(err)
	defer rows.Close()
	for {
		columns, err := rows.Columns()
		must(err)
		for rows.Next() {
			values := make([]sql.NullString, len(columns))
			places := make([]interface{}, len(columns))
			for place := range values {
				places[place] = &values[place]
			}
			must(rows.Scan(places...))
			fmt.Printf("%q\n", values)
		}
		if !rows.NextResultSet() {
			break
		}
	}
	must(rows.Err())
}

func main() {
	ca, err := os.ReadFile(os.Getenv("MYSQL_CA"))
	must(err)
	roots := x509.NewCertPool()
	roots.AppendCertsFromPEM(ca)
	must(mysql.RegisterTLSConfig("verbatim", &tls.Config{RootCAs: roots, ServerName: os.Getenv("MYSQL_HOST")}))
	config := mysql.NewConfig()
	config.User = os.Getenv("MYSQL_USER")
	config.Passwd = os.Getenv("MYSQL_PASSWORD")
	config.Net = "tcp"
	config.Addr = os.Getenv("MYSQL_HOST") + ":" + os.Getenv("MYSQL_PORT")
	config.DBName = os.Getenv("MYSQL_DATABASE")
	config.TLSConfig = "verbatim"
	config.AllowCleartextPasswords = true
	config.MultiStatements = true
	db, err := sql.Open("mysql", config.FormatDSN())
	must(err)
	db.SetMaxOpenConns(1)

	rows(db.Query("SELECT 1, 'täxt', NULL, 2.50"))
	_, err = db.Exec("CREATE TABLE go_items (id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(100), made DATETIME(6), data BLOB)")
	must(err)
	made := time.Date(2024, 2, 29, 23, 59, 58, 123456000, time.UTC)
	insert, err := db.Prepare("INSERT INTO go_items (name, made, data) VALUES (?, ?, ?)")
	must(err)
	for place, name := range []interface{}{"a", "b'ü", nil} {
		result, err := insert.Exec(name, made, []byte{0, byte(place), 255})
		must(err)
		id, _ := result.LastInsertId()
		count, _ := result.RowsAffected()
		fmt.Println(id, count)
	}
	must(insert.Close())
	rows(db.Query("SELECT id, name, made, HEX(data), ?, ?, ? FROM go_items WHERE id > ? ORDER BY id", int64(1)<<40, 2.5, true, 1))
	_, err = db.Exec("INSERT INTO go_items (id) VALUES (?)", 1)
	attempt("duplicate", err)
	_, err = db.Exec("SELEC 1")
	attempt("syntax", err)
	_, err = db.Prepare("SELECT ? FROM go_missing")
	attempt("missing", err)
	rows(db.Query("SELECT 1; SELECT 2; SELECT 'three'"))

	transaction, err := db.Begin()
	must(err)
	_, err = transaction.Exec("DELETE FROM go_items")
	must(err)
	must(transaction.Rollback())
	rows(db.Query("SELECT COUNT(*) FROM go_items"))
	// More than a packet.
	large := make([]byte, 17<<20)
	rows(db.Query("SELECT LENGTH(?)", large))
	_, err = db.Exec("DROP TABLE go_items")
	must(err)
	conn, err := db.Conn(context.Background())
	must(err)
	must(conn.PingContext(context.Background()))
	must(conn.Close())
	must(db.Close())
}
