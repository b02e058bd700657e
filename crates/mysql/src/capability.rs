//! The capability flags of a stream: what client and server may send each other.
//!
//! The upper half of the 64 bits is MariaDB's, which a server shows where it leaves [`MYSQL`] out. What is not in
//! [`RELAYED`] or [`OWN`] is never offered: compression and the flags that change the form of results (optional and cached
//! metadata, several results of one bulk execution).

/// `CLIENT_MYSQL` (once `CLIENT_LONG_PASSWORD`): without it the upper half is there.
pub(crate) const MYSQL: u64 = 1;
pub(crate) const FOUND_ROWS: u64 = 1 << 1;
pub(crate) const LONG_FLAG: u64 = 1 << 2;
pub(crate) const CONNECT_WITH_DB: u64 = 1 << 3;
pub(crate) const NO_SCHEMA: u64 = 1 << 4;
pub(crate) const COMPRESS: u64 = 1 << 5;
pub(crate) const ODBC: u64 = 1 << 6;
pub(crate) const LOCAL_FILES: u64 = 1 << 7;
pub(crate) const IGNORE_SPACE: u64 = 1 << 8;
pub(crate) const PROTOCOL_41: u64 = 1 << 9;
pub(crate) const INTERACTIVE: u64 = 1 << 10;
pub(crate) const SSL: u64 = 1 << 11;
pub(crate) const IGNORE_SIGPIPE: u64 = 1 << 12;
pub(crate) const TRANSACTIONS: u64 = 1 << 13;
pub(crate) const RESERVED: u64 = 1 << 14;
pub(crate) const SECURE_CONNECTION: u64 = 1 << 15;
pub(crate) const MULTI_STATEMENTS: u64 = 1 << 16;
pub(crate) const MULTI_RESULTS: u64 = 1 << 17;
pub(crate) const PS_MULTI_RESULTS: u64 = 1 << 18;
pub(crate) const PLUGIN_AUTH: u64 = 1 << 19;
pub(crate) const CONNECT_ATTRS: u64 = 1 << 20;
pub(crate) const PLUGIN_AUTH_LENENC: u64 = 1 << 21;
pub(crate) const SESSION_TRACK: u64 = 1 << 23;
pub(crate) const DEPRECATE_EOF: u64 = 1 << 24;
pub(crate) const ZSTD: u64 = 1 << 26;
pub(crate) const QUERY_ATTRIBUTES: u64 = 1 << 27;
/// `MARIADB_CLIENT_PROGRESS`: ERR packets with the code 65535 say how far a statement is.
pub(crate) const PROGRESS: u64 = 1 << 32;
/// `MARIADB_CLIENT_STMT_BULK_OPERATIONS`: COM_STMT_BULK_EXECUTE.
pub(crate) const BULK: u64 = 1 << 34;
/// `MARIADB_CLIENT_EXTENDED_METADATA`: more in a column definition.
pub(crate) const EXTENDED_METADATA: u64 = 1 << 35;

/// What client and target settle between them: the gateway asks the target for what the client asked for.
pub(crate) const RELAYED: u64 = FOUND_ROWS
    | LONG_FLAG
    | NO_SCHEMA
    | ODBC
    | LOCAL_FILES
    | IGNORE_SPACE
    | INTERACTIVE
    | IGNORE_SIGPIPE
    | TRANSACTIONS
    | RESERVED
    | MULTI_STATEMENTS
    | MULTI_RESULTS
    | PS_MULTI_RESULTS
    | SESSION_TRACK
    | DEPRECATE_EOF
    | QUERY_ATTRIBUTES
    | PROGRESS
    | BULK
    | EXTENDED_METADATA;

/// What the gateway needs or does at each side by itself.
pub(crate) const OWN: u64 = MYSQL
    | CONNECT_WITH_DB
    | PROTOCOL_41
    | SECURE_CONNECTION
    | PLUGIN_AUTH
    | CONNECT_ATTRS
    | PLUGIN_AUTH_LENENC;

/// Without these there is no login by token.
pub(crate) const NEEDED: u64 = PROTOCOL_41 | SECURE_CONNECTION | PLUGIN_AUTH;

/// What changes the form of what is sent: the target has to have it if the client was granted it.
pub(crate) const FORM: u64 =
    SESSION_TRACK | DEPRECATE_EOF | QUERY_ATTRIBUTES | PROGRESS | BULK | EXTENDED_METADATA;

/// What every server that is not ancient has: the offer where no target could be asked.
pub(crate) const COMMON: u64 = OWN
    | (RELAYED
        & !(SESSION_TRACK
            | DEPRECATE_EOF
            | QUERY_ATTRIBUTES
            | PROGRESS
            | BULK
            | EXTENDED_METADATA
            | RESERVED));
