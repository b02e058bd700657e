// MariaDB Connector/J: prepared at the server and pipelined, batches, cursors, procedures, cancel.
import java.sql.*;
import java.util.*;

public class MysqlWork {
    static void say(Object... values) {
        StringJoiner line = new StringJoiner(" ");
        for (Object value : values) line.add(String.valueOf(value));
        System.out.println(line);
    }

    static void rows(ResultSet rows) throws SQLException {
        ResultSetMetaData meta = rows.getMetaData();
        while (rows.next()) {
            StringJoiner line = new StringJoiner("|");
            for (int column = 1; column <= meta.getColumnCount(); column++) line.add(String.valueOf(rows.getString(column)));
            say(line);
        }
        rows.close();
    }

    interface Action { void run() throws SQLException; }

    static void attempt(String what, Action action) {
        try {
            action.run();
            say(what, "-> done");
        } catch (SQLException error) {
            // The driver puts its own words, the connection's number among them, before the server's.
            String message = String.valueOf(error.getMessage()).replaceAll("\\(conn=\\d+\\) ", "").split("\n")[0];
            say(what, "-> error", error.getErrorCode(), error.getSQLState(), message);
        }
    }

    static Connection connect(String more) throws SQLException {
        Map<String, String> env = System.getenv();
        String url = "jdbc:mariadb://" + env.get("MYSQL_HOST") + ":" + env.get("MYSQL_PORT") + "/" + env.get("MYSQL_DATABASE")
            + "?useSsl=true&serverSslCert=" + env.get("MYSQL_CA") + "&connectionAttributes=program_name:driver-jdbc" + more;
        return DriverManager.getConnection(url, env.get("MYSQL_USER"), env.get("MYSQL_PASSWORD"));
    }

    static void work(String how, String more) throws Exception {
        say("== " + how);
        try (Connection connection = connect(more)) {
            Statement statement = connection.createStatement();
            rows(statement.executeQuery("SELECT 1, 'täxt', NULL, 2.50"));
            statement.execute("CREATE TABLE j_items (id INT PRIMARY KEY AUTO_INCREMENT, name VARCHAR(100), made DATETIME(6), data BLOB)");
            try (PreparedStatement insert = connection.prepareStatement("INSERT INTO j_items (name, made, data) VALUES (?, ?, ?)")) {
                for (int place = 0; place < 5; place++) {
                    insert.setString(1, "row " + place + " 'ü'");
                    insert.setTimestamp(2, place == 3 ? null : Timestamp.valueOf("2024-02-29 23:59:58.123456"));
                    insert.setBytes(3, new byte[] {0, (byte) place, (byte) 255});
                    insert.addBatch();
                }
                say(Arrays.toString(insert.executeBatch()));
            }
            try (PreparedStatement select = connection.prepareStatement("SELECT id, name, made, HEX(data), ? FROM j_items WHERE id > ? ORDER BY id")) {
                select.setLong(1, 1L << 40);
                select.setInt(2, 3);
                rows(select.executeQuery());
                select.setBigDecimal(1, new java.math.BigDecimal("12.50"));
                select.setInt(2, 4);
                rows(select.executeQuery());
                select.setNull(1, Types.VARCHAR);
                select.setDouble(2, 4.5);
                rows(select.executeQuery());
            }
            try (PreparedStatement stream = connection.prepareStatement("SELECT id FROM j_items ORDER BY id")) {
                stream.setFetchSize(2);
                rows(stream.executeQuery());
            }
            attempt("duplicate", () -> statement.execute("INSERT INTO j_items (id) VALUES (1)"));
            attempt("syntax", () -> statement.execute("SELEC 1"));
            attempt("missing", () -> connection.prepareStatement("SELECT ? FROM j_missing").executeQuery());
            statement.execute("CREATE PROCEDURE j_two(IN n INT) BEGIN SELECT n; SELECT n + 1; END");
            try (CallableStatement call = connection.prepareCall("{call j_two(?)}")) {
                call.setInt(1, 7);
                boolean more2 = call.execute();
                while (more2) {
                    rows(call.getResultSet());
                    more2 = call.getMoreResults();
                }
            }
            connection.setAutoCommit(false);
            statement.executeUpdate("DELETE FROM j_items");
            connection.rollback();
            connection.setAutoCommit(true);
            rows(statement.executeQuery("SELECT COUNT(*) FROM j_items"));
            Statement slow = connection.createStatement();
            Thread cancel = new Thread(() -> {
                try (Connection watch = connect(""); Statement look = watch.createStatement()) {
                    while (true) {
                        ResultSet found = look.executeQuery("SELECT COUNT(*) FROM information_schema.processlist WHERE info LIKE 'SELECT SLEEP(30)%'");
                        found.next();
                        if (found.getInt(1) > 0) break;
                    }
                    slow.cancel();
                } catch (SQLException error) {
                    say("cancel failed", error.getMessage());
                }
            });
            cancel.start();
            attempt("sleep", () -> slow.executeQuery("SELECT SLEEP(30), 'a'"));
            cancel.join();
            say(connection.isValid(5));
            statement.execute("DROP PROCEDURE j_two");
            statement.execute("DROP TABLE j_items");
        }
    }

    public static void main(String[] arguments) throws Exception {
        work("text", "");
        work("prepared", "&useServerPrepStmts=true");
        work("bulk", "&useServerPrepStmts=true&useBulkStmts=true&rewriteBatchedStatements=false&useBatchMultiSend=true");
    }
}
