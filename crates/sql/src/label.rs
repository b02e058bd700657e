//! Statements, their words and their effects.

use sqlparser::ast::{CopySource, Expr, Query, SetExpr, Statement, UtilityOption, Value};
use sqlparser::dialect::{self, MySqlDialect, PostgreSqlDialect};
use sqlparser::keywords::Keyword;
use sqlparser::parser::Parser;
use sqlparser::tokenizer::{Token, Tokenizer};

use crate::chains;

/// The longest text that is looked at, in bytes.
const TEXT_MAX: usize = 1024 * 1024;
/// How deep the parser may recurse.
const RECURSION_MAX: usize = 40;

/// Whose SQL it is.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Dialect {
    /// PostgreSQL's.
    Postgres,
    /// MySQL's and MariaDB's.
    MySql,
}

/// What a statement may do, from the mildest to the worst.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Effect {
    /// Reads, or touches the session alone.
    Read,
    /// Changes rows.
    Write,
    /// Changes what tables, functions and their like there are.
    Ddl,
    /// Changes who may do what, or the server; runs programs.
    Admin,
    /// Does what its text does not say: `DO`, `CALL`, `EXECUTE`.
    Unknown,
}

impl Effect {
    /// The word in rules: `read`, `write`, `ddl`, `admin`, `unknown`.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Read => "read",
            Self::Write => "write",
            Self::Ddl => "ddl",
            Self::Admin => "admin",
            Self::Unknown => "unknown",
        }
    }
}

/// What a text is: a word for it, and its effect.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Label {
    word: &'static str,
    effect: Effect,
}

impl Label {
    /// Its first word in lower case: `select`, `delete`, `create`, … Of several statements, and of one within another,
    /// that of the worst effect.
    pub const fn word(self) -> &'static str {
        self.word
    }

    /// The worst that it may do.
    pub const fn effect(self) -> Effect {
        self.effect
    }

    /// The worse of two, the first of equals.
    fn or_worse(self, other: Self) -> Self {
        if other.effect > self.effect { other } else { self }
    }
}

impl AsRef<str> for Label {
    fn as_ref(&self) -> &str {
        self.word
    }
}

/// What `text` is; none where it is empty, over a limit of this crate, or a part of it is read by no parser.
pub fn statement(text: &str, dialect: Dialect) -> Option<Label> {
    if text.len() > TEXT_MAX {
        return None;
    }
    let grammar: &dyn dialect::Dialect = match dialect {
        Dialect::Postgres => &PostgreSqlDialect {},
        Dialect::MySql => &MySqlDialect {},
    };
    let mut tokens = Tokenizer::new(grammar, text).tokenize().ok()?;
    tokens.retain(|token| !matches!(token, Token::Whitespace(_)));
    if !chains::are_bounded(&tokens) {
        return None;
    }
    let mut worst: Option<Label> = None;
    for tokens in split(&tokens) {
        let label = Piece { tokens, grammar }.label()?;
        worst = Some(worst.map_or(label, |worst| worst.or_worse(label)));
    }
    worst
}

/// The statements of a text: what is between semicolons outside brackets.
fn split(tokens: &[Token]) -> impl Iterator<Item = &[Token]> {
    let mut depth = 0_usize;
    let ends = move |token: &Token| {
        match token {
            Token::LParen => depth += 1,
            Token::RParen => depth = depth.saturating_sub(1),
            _ => {}
        }
        depth == 0 && *token == Token::SemiColon
    };
    tokens.split(ends).filter(|piece| !piece.is_empty())
}

/// One statement.
struct Piece<'a> {
    tokens: &'a [Token],
    grammar: &'a dyn dialect::Dialect,
}

impl Piece<'_> {
    fn label(&self) -> Option<Label> {
        let Some(Token::Word(first)) = self.tokens.iter().find(|token| **token != Token::LParen) else {
            return None;
        };
        let named = |word, effect| Some(Label { word, effect });
        match first.keyword {
            // What can hold other statements, or is little worth without its grammar.
            Keyword::TABLE if self.is_name() => named("select", Effect::Read),
            Keyword::SELECT | Keyword::VALUES | Keyword::TABLE | Keyword::WITH => self.parsed(),
            Keyword::INSERT | Keyword::UPDATE | Keyword::DELETE | Keyword::MERGE => self.parsed(),
            Keyword::EXPLAIN | Keyword::DESCRIBE | Keyword::DESC => self.parsed(),
            Keyword::COPY => self.copy(),
            Keyword::REPLACE => named("replace", Effect::Write),
            Keyword::CREATE => named("create", self.definition()),
            Keyword::ALTER => named("alter", self.definition()),
            Keyword::DROP => named("drop", self.definition()),
            Keyword::SET => named("set", self.setting()),
            Keyword::RESET => named("reset", self.setting()),
            _ => {
                let first = first.value.as_str();
                let known = SIMPLE.iter().find(|(word, _)| first.eq_ignore_ascii_case(word))?;
                named(known.0, known.1)
            }
        }
    }

    /// `TABLE a.b`, which the parser does not know by itself.
    fn is_name(&self) -> bool {
        self.tokens.iter().all(|token| matches!(token, Token::Word(_) | Token::Period))
    }

    /// The words after the first, up to the first that is none, in lower case.
    fn words(&self) -> impl Iterator<Item = String> {
        self.tokens.iter().skip(1).map_while(|token| match token {
            Token::Word(word) => Some(word.value.to_ascii_lowercase()),
            _ => None,
        })
    }

    /// The effect of CREATE, ALTER and DROP, by what they are about.
    fn definition(&self) -> Effect {
        let mut words = self.words().skip_while(|word| matches!(word.as_str(), "or" | "replace" | "trusted"));
        let about_the_server = match words.next().as_deref() {
            Some("foreign") => words.next().as_deref() == Some("data"),
            Some(word) => SERVER_OBJECTS.contains(&word),
            None => false,
        };
        if about_the_server { Effect::Admin } else { Effect::Ddl }
    }

    /// The effect of SET and RESET: who the session is, or how the whole server runs, is more than a setting.
    fn setting(&self) -> Effect {
        let mut words = self.words();
        let first = match words.next() {
            Some(scope) if scope == "session" || scope == "local" => words.next(),
            first => first,
        };
        match first.as_deref() {
            Some("role" | "authorization" | "session_authorization" | "global" | "persist" | "password") => {
                Effect::Admin
            }
            _ => Effect::Read,
        }
    }

    /// COPY writes FROM, reads TO, and runs a PROGRAM; the query in its brackets is parsed.
    fn copy(&self) -> Option<Label> {
        let inner = match self.tokens.get(1) {
            Some(Token::LParen) => self.parse().and_then(|statement| match statement {
                Statement::Copy { source: CopySource::Query(query), .. } => Some(query_label(&query)),
                _ => None,
            }),
            _ => None,
        };
        // A query may have a FROM of its own; after it the direction can only be TO.
        let is_query = self.tokens.get(1) == Some(&Token::LParen);
        let mut after = self.tokens.iter().skip_while(|token| match token {
            Token::Word(word) => {
                !matches!(word.keyword, Keyword::FROM | Keyword::TO)
                    || is_query && word.keyword == Keyword::FROM
            }
            _ => true,
        });
        let direction = after.next();
        let program = matches!(after.next(), Some(Token::Word(word)) if word.keyword == Keyword::PROGRAM);
        let effect = match direction {
            _ if program => Effect::Admin,
            Some(Token::Word(word)) if word.keyword == Keyword::FROM => Effect::Write,
            Some(_) => Effect::Read,
            None => return None,
        };
        let copy = Label { word: "copy", effect };
        match (is_query, inner) {
            (true, None) => None,
            (_, inner) => Some(inner.map_or(copy, |inner| copy.or_worse(inner))),
        }
    }

    fn parse(&self) -> Option<Statement> {
        let mut parser =
            Parser::new(self.grammar).with_recursion_limit(RECURSION_MAX).with_tokens(self.tokens.to_vec());
        let statement = parser.parse_statement().ok()?;
        (parser.peek_token().token == Token::EOF).then_some(statement)
    }

    fn parsed(&self) -> Option<Label> {
        statement_label(&self.parse()?)
    }
}

/// What CREATE, ALTER and DROP change for more than the data: who may do what, and what the server runs.
const SERVER_OBJECTS: &[&str] = &[
    "role",
    "user",
    "group",
    "database",
    "tablespace",
    "extension",
    "language",
    "procedural",
    "server",
    "subscription",
    "publication",
    "system",
    "policy",
    "default",
    "instance",
];

/// Statements without others in them, whose first word says it all.
const SIMPLE: &[(&str, Effect)] = &[
    ("begin", Effect::Read),
    ("start", Effect::Read),
    ("commit", Effect::Read),
    ("end", Effect::Read),
    ("rollback", Effect::Read),
    ("abort", Effect::Read),
    ("savepoint", Effect::Read),
    ("release", Effect::Read),
    ("show", Effect::Read),
    ("use", Effect::Read),
    ("declare", Effect::Read),
    ("fetch", Effect::Read),
    ("move", Effect::Read),
    ("close", Effect::Read),
    ("listen", Effect::Read),
    ("unlisten", Effect::Read),
    ("discard", Effect::Read),
    ("prepare", Effect::Read),
    ("deallocate", Effect::Read),
    ("help", Effect::Read),
    ("checksum", Effect::Read),
    ("unlock", Effect::Read),
    ("xa", Effect::Read),
    ("notify", Effect::Write),
    ("lock", Effect::Write),
    ("truncate", Effect::Write),
    ("refresh", Effect::Write),
    ("comment", Effect::Ddl),
    ("security", Effect::Admin),
    ("import", Effect::Ddl),
    ("rename", Effect::Ddl),
    ("reindex", Effect::Admin),
    ("vacuum", Effect::Admin),
    ("analyze", Effect::Admin),
    ("analyse", Effect::Admin),
    ("cluster", Effect::Admin),
    ("checkpoint", Effect::Admin),
    ("load", Effect::Admin),
    ("grant", Effect::Admin),
    ("revoke", Effect::Admin),
    ("reassign", Effect::Admin),
    ("kill", Effect::Admin),
    ("flush", Effect::Admin),
    ("purge", Effect::Admin),
    ("optimize", Effect::Admin),
    ("repair", Effect::Admin),
    ("check", Effect::Admin),
    ("install", Effect::Admin),
    ("uninstall", Effect::Admin),
    ("shutdown", Effect::Admin),
    ("restart", Effect::Admin),
    ("change", Effect::Admin),
    ("stop", Effect::Admin),
    ("handler", Effect::Read),
    ("do", Effect::Unknown),
    ("call", Effect::Unknown),
    ("execute", Effect::Unknown),
];

fn statement_label(statement: &Statement) -> Option<Label> {
    let writes = |word| Some(Label { word, effect: Effect::Write });
    match statement {
        Statement::Query(query) => Some(query_label(query)),
        Statement::Insert(insert) => match insert.replace_into {
            true => writes("replace"),
            false => writes("insert"),
        },
        Statement::Update(_) => writes("update"),
        Statement::Delete(_) => writes("delete"),
        Statement::Merge(_) => writes("merge"),
        Statement::Explain { analyze, options, statement, .. } => {
            let explain = Label { word: "explain", effect: Effect::Read };
            let runs = *analyze || options.iter().flatten().any(is_analyze);
            match (runs, statement_label(statement)) {
                (true, Some(run)) => Some(explain.or_worse(run)),
                (true, None) => Some(Label { effect: Effect::Unknown, ..explain }),
                (false, _) => Some(explain),
            }
        }
        Statement::ExplainTable { .. } => Some(Label { word: "describe", effect: Effect::Read }),
        _ => None,
    }
}

/// `EXPLAIN (ANALYZE)` runs what it explains, unless it is told not to.
fn is_analyze(option: &UtilityOption) -> bool {
    let off = |text: &str| ["off", "false", "0", "no"].iter().any(|word| text.eq_ignore_ascii_case(word));
    let off = match &option.arg {
        None => false,
        Some(Expr::Identifier(word)) => off(&word.value),
        Some(Expr::Value(value)) => match &value.value {
            Value::Boolean(on) => !on,
            value => off(&value.to_string()),
        },
        Some(_) => false,
    };
    option.name.value.eq_ignore_ascii_case("analyze") && !off
}

/// A query's own word, or that of what it changes on the way.
fn query_label(query: &Query) -> Label {
    let mut worst = Label { word: "select", effect: Effect::Read };
    visit_query(query, &mut |body| {
        match body {
            SetExpr::Insert(inner)
            | SetExpr::Update(inner)
            | SetExpr::Delete(inner)
            | SetExpr::Merge(inner) => {
                if let Some(label) = statement_label(inner) {
                    worst = worst.or_worse(label);
                }
            }
            // SELECT … INTO makes a table.
            SetExpr::Select(select) if select.into.is_some() => {
                worst = worst.or_worse(Label { word: "select", effect: Effect::Ddl });
            }
            _ => {}
        }
    });
    worst
}

/// Shows every part of a query that can hold a statement: those of its WITH, and both sides of UNION and its like. (The
/// server allows no others.) It recurses into brackets and right sides only, which the parser has limited.
fn visit_query(query: &Query, show: &mut impl FnMut(&SetExpr)) {
    for cte in query.with.iter().flat_map(|with| &with.cte_tables) {
        visit_query(&cte.query, show);
    }
    visit_body(&query.body, show);
}

fn visit_body(mut body: &SetExpr, show: &mut impl FnMut(&SetExpr)) {
    loop {
        show(body);
        match body {
            SetExpr::SetOperation { left, right, .. } => {
                visit_body(right, show);
                body = left;
            }
            SetExpr::Query(query) => return visit_query(query, show),
            _ => return,
        }
    }
}

#[cfg(test)]
mod tests;
