-- The quickstart's data: a few customers and what they owe.
CREATE TABLE customers (id int PRIMARY KEY, name text NOT NULL, email text NOT NULL);
CREATE TABLE invoices (id int PRIMARY KEY, customer int NOT NULL REFERENCES customers, amount numeric(10, 2) NOT NULL, paid_at timestamptz);
CREATE TABLE reminders (invoice int NOT NULL REFERENCES invoices, text text NOT NULL);
INSERT INTO customers SELECT n, 'Customer ' || n, 'customer' || n || '@example.com' FROM generate_series(1, 40) n;
INSERT INTO invoices SELECT n, 1 + n % 40, 100 + (n * 37) % 2000, CASE WHEN n % 3 = 0 THEN timestamptz '2024-01-01 00:00Z' END
  FROM generate_series(1, 200) n;
