//! `AUTH user token` and `HELLO version AUTH user token [SETNAME name]`.

use bytes::Bytes;

use super::request;
use super::secrets::after_auth;

/// What a client logs in with.
pub(crate) struct Login {
    pub(crate) user: Option<Vec<u8>>,
    pub(crate) token: Vec<u8>,
    /// The `HELLO` without its token, for the target.
    pub(crate) hello: Option<Hello>,
}

/// Prints no token.
impl std::fmt::Debug for Login {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "Login(user: {}, {} bytes)", self.user.is_some(), self.token.len())
    }
}

/// A `HELLO` that the target gets.
#[derive(Debug, Clone)]
pub(crate) struct Hello {
    pub(crate) version: u8,
    pub(crate) name: Option<Vec<u8>>,
}

impl Hello {
    /// As a request.
    pub(crate) fn request(&self) -> Bytes {
        let version = [b'0' + self.version];
        match &self.name {
            None => request(&[b"HELLO", &version]),
            Some(name) => request(&[b"HELLO", &version, b"SETNAME", name]),
        }
    }
}

/// Whether a command is a login, in whatever form.
pub(super) fn is_login(arguments: &[&[u8]]) -> bool {
    let Some(name) = arguments.first() else { return false };
    name.eq_ignore_ascii_case(b"AUTH")
        || name.eq_ignore_ascii_case(b"HELLO") && after_auth(arguments, 2).is_some()
}

/// Why a login cannot be read, in the server's words.
#[derive(Debug, PartialEq, Eq)]
pub(crate) enum NoLogin {
    /// A token without a user's name.
    OneArgument,
    /// Anything else.
    Words(&'static str),
}

/// Reads `AUTH user token` or `HELLO version AUTH user token [SETNAME name]`.
pub(crate) fn read_login(arguments: &[&[u8]]) -> Result<Login, NoLogin> {
    match arguments {
        [auth, user, token] if auth.eq_ignore_ascii_case(b"AUTH") => {
            Ok(Login { user: Some(user.to_vec()), token: token.to_vec(), hello: None })
        }
        [auth, _] if auth.eq_ignore_ascii_case(b"AUTH") => Err(NoLogin::OneArgument),
        [auth] if auth.eq_ignore_ascii_case(b"AUTH") => {
            Err(NoLogin::Words("ERR wrong number of arguments for 'auth' command"))
        }
        [auth, ..] if auth.eq_ignore_ascii_case(b"AUTH") => Err(NoLogin::Words("ERR syntax error")),
        [_, version, rest @ ..] => {
            let version = match *version {
                b"2" => 2,
                b"3" => 3,
                other if crate::frame::number(other).is_some() => {
                    return Err(NoLogin::Words("NOPROTO unsupported protocol version"));
                }
                _ => return Err(NoLogin::Words("ERR Protocol version is not an integer or out of range")),
            };
            hello(version, rest)
        }
        _ => Err(NoLogin::Words("ERR syntax error")),
    }
}

fn hello(version: u8, mut options: &[&[u8]]) -> Result<Login, NoLogin> {
    let mut login = Login { user: None, token: Vec::new(), hello: None };
    let mut name = None;
    loop {
        options = match options {
            [] => break,
            [auth, user, token, rest @ ..] if auth.eq_ignore_ascii_case(b"AUTH") => {
                login.user = Some(user.to_vec());
                login.token = token.to_vec();
                rest
            }
            [option, value, rest @ ..] if option.eq_ignore_ascii_case(b"SETNAME") => {
                name = Some(value.to_vec());
                rest
            }
            _ => return Err(NoLogin::Words("ERR Syntax error in HELLO option")),
        };
    }
    login.hello = Some(Hello { version, name });
    Ok(login)
}
