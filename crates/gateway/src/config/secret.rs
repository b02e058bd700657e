//! Secrets by reference: `{ env = "NAME" }`, `{ file = "PATH" }`, `{ exec = ["program", "argument"] }`; never printed.

use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use secrecy::SecretString;

use super::reader::Field;

/// The longest secret that is read, in bytes.
const SECRET_BYTES_MAX: u64 = 64 * 1024;

/// Reads the secret that a field refers to, and notes what is wrong with the reference.
pub(crate) fn read(field: &Field<'_, '_>, folder: &Path) -> Option<SecretString> {
    if !field.is_table() {
        field.mistake(
            "a secret stands elsewhere: write { env = \"NAME\" }, { file = \"PATH\" } or { exec = [\"PROGRAM\"] }",
        );
        return None;
    }
    let table = field.table()?;
    let (env, file, exec) = (table.get("env"), table.get("file"), table.get("exec"));
    table.finish();
    let (source, secret) = match (env, file, exec) {
        (Some(env), None, None) => {
            let secret = from_env(env.string()?);
            (env, secret)
        }
        (None, Some(file), None) => {
            let secret = from_file(&folder.join(PathBuf::from(file.string()?)));
            (file, secret)
        }
        (None, None, Some(exec)) => {
            let secret = from_program(&exec.strings(), folder);
            (exec, secret)
        }
        _ => {
            field.mistake("a secret is exactly one of { env = … }, { file = … }, { exec = […] }");
            return None;
        }
    };
    match secret {
        Ok(text) => Some(text.trim_end_matches(['\r', '\n']).to_owned().into()),
        Err(why) => {
            source.mistake(why);
            None
        }
    }
}

fn from_env(name: &str) -> Result<String, String> {
    std::env::var(name).map_err(|error| match error {
        std::env::VarError::NotPresent => format!("the environment variable {name} is not set"),
        std::env::VarError::NotUnicode(_) => format!("the environment variable {name} is not UTF-8"),
    })
}

fn from_file(path: &Path) -> Result<String, String> {
    let shown = path.display();
    let length = std::fs::metadata(path).map_err(|error| format!("{shown}: {error}"))?.len();
    if length > SECRET_BYTES_MAX {
        return Err(format!("{shown}: {length} bytes, more than a secret may have ({SECRET_BYTES_MAX})"));
    }
    std::fs::read_to_string(path).map_err(|error| format!("{shown}: {error}"))
}

fn from_program(words: &[String], folder: &Path) -> Result<String, String> {
    let (program, arguments) =
        words.split_first().ok_or("name a program: { exec = [\"PROGRAM\", \"ARGUMENT\"] }")?;
    let run = Command::new(program)
        .args(arguments)
        .current_dir(if folder.as_os_str().is_empty() { Path::new(".") } else { folder })
        .stdin(Stdio::null())
        .stderr(Stdio::inherit())
        .output();
    let output = run.map_err(|error| format!("{program}: {error}"))?;
    if !output.status.success() {
        return Err(format!("{program}: {}", output.status));
    }
    if output.stdout.len() as u64 > SECRET_BYTES_MAX {
        return Err(format!("{program}: more output than a secret may have ({SECRET_BYTES_MAX} bytes)"));
    }
    String::from_utf8(output.stdout).map_err(|_| format!("{program}: its output is not UTF-8"))
}
