import java.io.ByteArrayInputStream;
import java.io.StringReader;
import java.io.StringWriter;
import java.nio.charset.StandardCharsets;
import java.sql.BatchUpdateException;
import java.sql.Connection;
import java.sql.DriverManager;
import java.sql.PreparedStatement;
import java.sql.ResultSet;
import java.sql.SQLException;
import java.sql.SQLWarning;
import java.sql.Statement;
import java.sql.Types;
import java.util.Arrays;
import java.util.Properties;
import java.util.UUID;
import org.postgresql.PGConnection;
import org.postgresql.PGNotification;
import org.postgresql.copy.CopyManager;
import org.postgresql.util.PSQLException;
import org.postgresql.util.ServerErrorMessage;

/** PostgreSQL JDBC: simple, extended, server-prepared and binary, batches, COPY, fetch size, FunctionCall, cancel. */
public final class Work {
    private interface Action { Object run() throws Exception; }

    private static void say(Object... values) {
        StringBuilder line = new StringBuilder();
        for (Object value : values) line.append(line.length() == 0 ? "" : " ").append(value);
        System.out.println(line);
    }

    private static void attempt(String what, Action action) throws Exception {
        try {
            say(what, "->", action.run());
        } catch (BatchUpdateException error) {
            say(what, "-> batch error", error.getSQLState(), error.getMessage(),
                Arrays.stream(error.getUpdateCounts()).filter(count -> count == Statement.EXECUTE_FAILED).count());
        } catch (PSQLException error) {
            ServerErrorMessage server = error.getServerErrorMessage();
            say(what, "-> error", error.getSQLState(), server == null ? error.getMessage() : server.getMessage(),
                server == null ? null : server.getConstraint());
        }
    }

    private static Connection connect(String... options) throws SQLException {
        Properties properties = new Properties();
        properties.setProperty("user", System.getenv("PGUSER"));
        properties.setProperty("password", System.getenv("PGPASSWORD"));
        properties.setProperty("ApplicationName", "driver-jdbc");
        String mode = System.getenv("PGSSLMODE");
        if (mode != null) properties.setProperty("sslmode", mode);
        String root = System.getenv("PGSSLROOTCERT");
        if (root != null) properties.setProperty("sslrootcert", root);
        for (int n = 0; n < options.length; n += 2) properties.setProperty(options[n], options[n + 1]);
        String host = System.getenv("PGHOST") + ":" + System.getenv("PGPORT");
        return DriverManager.getConnection("jdbc:postgresql://" + host + "/" + System.getenv("PGDATABASE"), properties);
    }

    private static Object one(Connection connection, String text) throws SQLException {
        try (Statement statement = connection.createStatement(); ResultSet rows = statement.executeQuery(text)) {
            rows.next();
            return rows.getObject(1);
        }
    }

    private static void statements(Connection connection, boolean bytes) throws Exception {
        try (PreparedStatement insert = connection.prepareStatement("INSERT INTO jdbc_items (id, name, price, ratio, ok, body, key) VALUES (?, ?, ?, ?, ?, ?, ?)")) {
            for (int n = 0; n < 8; n++) {
                insert.setInt(1, n);
                insert.setString(2, "item " + n + " 'ü'");
                insert.setBigDecimal(3, new java.math.BigDecimal("10.50"));
                insert.setDouble(4, n + 0.5);
                insert.setBoolean(5, n % 2 == 0);
                if (n == 3 || !bytes) insert.setNull(6, Types.BINARY); else insert.setBytes(6, new byte[] {0, (byte) n, (byte) 255});
                insert.setObject(7, UUID.fromString("00000000-0000-4000-8000-00000000000" + n));
                say("inserted", insert.executeUpdate());
            }
        }
        try (PreparedStatement find = connection.prepareStatement("SELECT * FROM jdbc_items WHERE id = ? AND ratio > ?")) {
            for (int n = 0; n < 8; n++) {
                find.setLong(1, n);
                find.setFloat(2, 0.25f);
                try (ResultSet rows = find.executeQuery()) {
                    while (rows.next()) {
                        say(rows.getInt("id"), rows.getString("name"), rows.getBigDecimal("price"), rows.getDouble("ratio"),
                            rows.getBoolean("ok"), Arrays.toString(rows.getBytes("body")), rows.getObject("key"));
                    }
                }
            }
        }
        try (PreparedStatement in = connection.prepareStatement("SELECT count(*) FROM jdbc_items WHERE id = ANY (?)")) {
            in.setArray(1, connection.createArrayOf("int4", new Integer[] {1, 2, 300}));
            try (ResultSet rows = in.executeQuery()) { rows.next(); say("any", rows.getLong(1)); }
        }
        try (Statement statement = connection.createStatement()) {
            boolean result = statement.execute("SELECT 1; UPDATE jdbc_items SET name = name; SELECT 'three'");
            while (result || statement.getUpdateCount() != -1) {
                if (result) { ResultSet rows = statement.getResultSet(); rows.next(); say("result", rows.getString(1)); }
                else say("count", statement.getUpdateCount());
                result = statement.getMoreResults();
            }
        }
        attempt("syntax", () -> one(connection, "SELEC 1"));
        attempt("division", () -> one(connection, "SELECT 1 / 0"));
        attempt("no table", () -> connection.prepareStatement("SELECT * FROM no_such WHERE a = ?").getMetaData());
        attempt("metadata", () -> connection.prepareStatement("SELECT id, name FROM jdbc_items WHERE id = ?").getMetaData().getColumnTypeName(2));
        attempt("generated", () -> {
            try (PreparedStatement insert = connection.prepareStatement("INSERT INTO jdbc_items (id, name) VALUES (?, ?)", Statement.RETURN_GENERATED_KEYS)) {
                insert.setInt(1, 50);
                insert.setString(2, "returned");
                insert.executeUpdate();
                ResultSet keys = insert.getGeneratedKeys();
                keys.next();
                return keys.getString("name");
            }
        });
    }

    private static void transactions(Connection connection) throws Exception {
        connection.setAutoCommit(false);
        attempt("violation", () -> connection.createStatement().executeUpdate("INSERT INTO jdbc_items (id, name) VALUES (1, 'x')"));
        attempt("after it", () -> one(connection, "SELECT 1"));
        connection.rollback();
        java.sql.Savepoint savepoint = connection.setSavepoint();
        attempt("violation", () -> connection.createStatement().executeUpdate("INSERT INTO jdbc_items (id, name) VALUES (1, 'x')"));
        connection.rollback(savepoint);
        say("count", one(connection, "SELECT count(*) FROM jdbc_items"));
        connection.commit();
        connection.setAutoCommit(true);
    }

    private static void batches(Connection connection, boolean failing) throws Exception {
        attempt("batch", () -> {
            try (PreparedStatement insert = connection.prepareStatement("INSERT INTO jdbc_items (id, name) VALUES (?, ?)")) {
                for (int n = 0; n < 300; n++) {
                    insert.setInt(1, failing && n == 150 ? 1 : 1000 + n);
                    insert.setString(2, "batch " + n);
                    insert.addBatch();
                }
                return Arrays.stream(insert.executeBatch()).filter(count -> count == 1 || count == Statement.SUCCESS_NO_INFO).count();
            }
        });
        say("count", one(connection, "SELECT count(*) FROM jdbc_items WHERE id >= 1000"));
        say("deleted", connection.createStatement().executeUpdate("DELETE FROM jdbc_items WHERE id >= 1000"));
    }

    private static void fetching(Connection connection) throws Exception {
        connection.setAutoCommit(false);
        try (PreparedStatement walk = connection.prepareStatement("SELECT n, n::text FROM generate_series(1, ?) n")) {
            walk.setInt(1, 250);
            walk.setFetchSize(100);
            long sum = 0;
            try (ResultSet rows = walk.executeQuery()) { while (rows.next()) sum += rows.getLong(1); }
            say("fetched", sum);
            try (ResultSet rows = walk.executeQuery()) { rows.next(); say("left early at", rows.getLong(1)); }
        }
        connection.commit();
        connection.setAutoCommit(true);
        try (Statement limited = connection.createStatement()) {
            limited.setMaxRows(5);
            int seen = 0;
            try (ResultSet rows = limited.executeQuery("SELECT n FROM generate_series(1, 50) n")) { while (rows.next()) seen++; }
            say("at most", seen);
        }
    }

    private static void copies(Connection connection) throws Exception {
        CopyManager copies = connection.unwrap(PGConnection.class).getCopyAPI();
        StringBuilder lines = new StringBuilder();
        for (int n = 2000; n < 6000; n++) lines.append(n).append("\tcopied ").append(n).append('\n');
        say("in", copies.copyIn("COPY jdbc_items (id, name) FROM STDIN", new StringReader(lines.toString())));
        attempt("bad data", () -> copies.copyIn("COPY jdbc_items (id, name) FROM STDIN",
            new ByteArrayInputStream("7000\tfine\nx\tbad\n".getBytes(StandardCharsets.UTF_8))));
        StringWriter out = new StringWriter();
        say("out", copies.copyOut("COPY (SELECT id, name FROM jdbc_items ORDER BY id) TO STDOUT", out), out.toString().hashCode());
    }

    private static void largeObjects(Connection connection) throws Exception {
        connection.setAutoCommit(false);
        var objects = connection.unwrap(PGConnection.class).getLargeObjectAPI();
        long oid = objects.createLO();
        try (var object = objects.open(oid)) {
            object.write("large object".repeat(1000).getBytes(StandardCharsets.UTF_8));
            object.seek(6);
            say("lob", new String(object.read(6), StandardCharsets.UTF_8), object.size());
        }
        objects.delete(oid);
        connection.commit();
        connection.setAutoCommit(true);
    }

    private static void listening(Connection connection) throws Exception {
        try (Connection other = connect(); Statement listen = connection.createStatement()) {
            listen.execute("LISTEN jdbc_news");
            other.createStatement().execute("NOTIFY jdbc_news, 'payload'");
            PGNotification[] notes = connection.unwrap(PGConnection.class).getNotifications(30_000);
            for (PGNotification note : notes) say(note.getName(), note.getParameter());
            listen.execute("UNLISTEN *");
        }
    }

    /** The server may signal a backend twice for one request, so the next statement may be hit as well. */
    private static Object afterACancel(Connection connection) throws SQLException {
        while (true) {
            try {
                return one(connection, "SELECT 'works'");
            } catch (PSQLException error) {
                if (!"57014".equals(error.getSQLState())) throw error;
            }
        }
    }

    private static void cancelling(String... options) throws Exception {
        try (Connection connection = connect(options)) {
            cancelled(connection);
            say("next", afterACancel(connection));
        }
    }

    private static void cancelled(Connection connection) throws Exception {
        int pid = connection.unwrap(PGConnection.class).getBackendPID();
        try (Connection watcher = connect(); Statement sleeping = connection.createStatement()) {
            Thread canceller = new Thread(() -> {
                try (PreparedStatement watch = watcher.prepareStatement("SELECT count(*) FROM pg_stat_activity WHERE pid = ? AND state = 'active' AND wait_event = 'PgSleep'")) {
                    for (long seen = 0; seen == 0;) {
                        watch.setInt(1, pid);
                        try (ResultSet rows = watch.executeQuery()) { rows.next(); seen = rows.getLong(1); }
                    }
                    sleeping.cancel();
                } catch (SQLException error) {
                    throw new IllegalStateException(error);
                }
            });
            canceller.start();
            attempt("cancelled", () -> sleeping.executeQuery("SELECT pg_sleep(60)"));
            canceller.join();
        }
    }

    private static void round(String name, String... options) throws Exception {
        say("==", name);
        try (Connection connection = connect(options)) {
            try (Statement statement = connection.createStatement()) {
                statement.execute("SET client_min_messages = warning; DROP TABLE IF EXISTS jdbc_items; SET client_min_messages = notice");
                statement.execute("CREATE TABLE jdbc_items (id int PRIMARY KEY, name text, price numeric, ratio float8, ok bool, body bytea, key uuid)");
                statement.execute("DO $$ BEGIN RAISE WARNING 'warned'; END $$");
                for (SQLWarning warning = statement.getWarnings(); warning != null; warning = warning.getNextWarning()) say("warning", warning.getMessage());
            }
            // In simple mode the driver can't write bytes.
            statements(connection, !name.equals("simple"));
            transactions(connection);
            batches(connection, false);
            batches(connection, true);
            fetching(connection);
            copies(connection);
            largeObjects(connection);
            listening(connection);
            cancelling(options);
            connection.createStatement().execute("DROP TABLE jdbc_items");
        }
    }

    /** Each way of the driver to speak, one after the other. */
    public static void main(String[] args) throws Exception {
        round("extended");
        round("server-prepared, binary", "prepareThreshold", "1", "binaryTransfer", "true");
        round("simple", "preferQueryMode", "simple");
        round("rewritten batches", "reWriteBatchedInserts", "true", "prepareThreshold", "0");
    }
}
