//! Who may visit what `http` shares, from flags, files, variables and the keyboard.

use std::io::{IsTerminal as _, Write as _};
use std::path::{Path, PathBuf};

use anyhow::Context as _;
use policy::{Access, Basic, Hashed, HeaderChange, Network, Rewrite};
use uuid::Uuid;

use crate::problem::Problem;
use crate::secret::Secret;

/// Digits of a PIN that is made here: enough for the edge's ten guesses in five minutes to be hopeless.
const PIN_DIGITS: u32 = 8;
/// Shortest PIN that is taken.
const SHORTEST_PIN: usize = 4;
/// Shortest password that is taken.
const SHORTEST_PASSWORD: usize = 8;

/// Holds the PIN, for those who want one of their own without a file.
const PIN_VARIABLE: &str = "SNICKET_PIN";
/// Holds the password of `--basic`.
const PASSWORD_VARIABLE: &str = "SNICKET_BASIC_PASSWORD";

/// Flags about who may visit.
#[derive(Debug, clap::Args)]
#[command(next_help_heading = "Access, checked at the edge")]
pub(crate) struct AccessArgs {
    /// Ask visitors for a PIN: that of --pin-file or SNICKET_PIN, else a new one that is shown
    #[arg(long)]
    pin: bool,
    /// The PIN, in a file; `-` is standard input
    #[arg(long, value_name = "FILE", env = "SNICKET_PIN_FILE", hide_env_values = true, hide_short_help = true)]
    pin_file: Option<PathBuf>,
    /// Ask visitors for this name and a password: from --basic-password-file, SNICKET_BASIC_PASSWORD or the keyboard
    #[arg(long, value_name = "USER")]
    basic: Option<String>,
    /// The password of --basic, in a file; `-` is standard input
    #[arg(
        long,
        value_name = "FILE",
        requires = "basic",
        env = "SNICKET_BASIC_PASSWORD_FILE",
        hide_env_values = true,
        hide_short_help = true
    )]
    basic_password_file: Option<PathBuf>,
    /// Let in only visitors of this network; may be repeated
    #[arg(long, value_name = "CIDR")]
    allow: Vec<Network>,
    /// Set a field of requests to the origin, or remove it: 'Name: value', -Name; may be repeated
    #[arg(long, value_name = "FIELD", allow_hyphen_values = true)]
    header: Vec<HeaderChange>,
    /// Show the origin another path: /api=/v1; may be repeated, the first that fits counts
    #[arg(long, value_name = "FROM=TO")]
    rewrite: Vec<Rewrite>,
}

/// What the flags come to.
#[derive(Debug)]
pub(crate) struct Wanted {
    /// For the edge. Secrets are in it only as hashes.
    pub(crate) rules: Access,
    /// A PIN that was made just now, to be shown once.
    pub(crate) new_pin: Option<String>,
}

impl AccessArgs {
    /// Reads the secrets, and makes the rules.
    pub(crate) async fn read(&self) -> anyhow::Result<Wanted> {
        let limit = policy::MAX_LIST;
        if [self.allow.len(), self.header.len(), self.rewrite.len()].into_iter().any(|count| count > limit) {
            let advice = format!("at most {limit} of each are taken");
            return Err(Problem::usage("too many of --allow, --header or --rewrite", advice).into());
        }
        let (pin, new_pin) = self.pin()?;
        let password = self.basic.as_deref().map(|user| self.password(user)).transpose()?;
        let (allow, headers, rewrite) = (self.allow.clone(), self.header.clone(), self.rewrite.clone());
        let rules = Access {
            allow,
            pin: hashed(pin).await?,
            basic: match (self.basic.clone(), hashed(password).await?) {
                (Some(user), Some(password)) => vec![Basic { user, password }],
                _ => Vec::new(),
            },
            headers,
            rewrite,
        };
        Ok(Wanted { rules, new_pin })
    }

    fn pin(&self) -> anyhow::Result<(Option<Secret>, Option<String>)> {
        if !self.pin && self.pin_file.is_none() {
            return Ok((None, None));
        }
        let Some(given) = secret(self.pin_file.as_deref(), PIN_VARIABLE)? else {
            let pin = random_pin();
            return Ok((Some(Secret::new(&pin)), Some(pin)));
        };
        if given.reveal().chars().count() < SHORTEST_PIN {
            let what = format!("the PIN has fewer than {SHORTEST_PIN} characters");
            return Err(Problem::usage(what, "choose a longer one, or leave it to --pin").into());
        }
        Ok((Some(given), None))
    }

    fn password(&self, user: &str) -> anyhow::Result<Secret> {
        if !Basic::is_user(user) {
            return Err(Problem::usage(format!("{user:?} is no user name"), "a name has no colon").into());
        }
        let given = match secret(self.basic_password_file.as_deref(), PASSWORD_VARIABLE)? {
            Some(given) => given,
            None => prompt(user)?,
        };
        if given.reveal().chars().count() < SHORTEST_PASSWORD {
            let what = format!("the password has fewer than {SHORTEST_PASSWORD} characters");
            return Err(Problem::usage(what, "choose a longer one").into());
        }
        Ok(given)
    }
}

/// From the file, else from the variable.
fn secret(file: Option<&Path>, variable: &str) -> anyhow::Result<Option<Secret>> {
    match file {
        Some(path) => Secret::read(path).map(Some),
        None => {
            Ok(std::env::var(variable).ok().map(|text| Secret::new(&text)).filter(|text| !text.reveal().is_empty()))
        }
    }
}

fn prompt(user: &str) -> anyhow::Result<Secret> {
    if !std::io::stdin().is_terminal() {
        return Err(Problem::usage(
            format!("which password for {user}?"),
            format!("give it with --basic-password-file FILE (`-` is standard input) or in {PASSWORD_VARIABLE}"),
        )
        .into());
    }
    // Standard output is for what programs read.
    eprint!("Password for {user} (it is not shown): ");
    let _ = std::io::stderr().flush();
    let text = rpassword::read_password().context("the password cannot be read from the keyboard")?;
    Ok(Secret::new(&text))
}

fn random_pin() -> String {
    // 122 random bits, of which the lowest 62 are random without a gap.
    let random = Uuid::new_v4().as_u128() & ((1 << 62) - 1);
    format!("{:0width$}", random % 10_u128.pow(PIN_DIGITS), width = PIN_DIGITS as usize)
}

/// Hashing takes some tenths of a second.
async fn hashed(secret: Option<Secret>) -> anyhow::Result<Option<Hashed>> {
    let Some(secret) = secret else { return Ok(None) };
    let salt = *Uuid::new_v4().as_bytes();
    let hashed = tokio::task::spawn_blocking(move || Hashed::new(secret.reveal().as_bytes(), salt));
    Ok(Some(hashed.await.context("the password cannot be hashed")?))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pin_has_its_digits() {
        for _ in 0..100 {
            let pin = random_pin();
            assert!(pin.len() == PIN_DIGITS as usize && pin.bytes().all(|byte| byte.is_ascii_digit()), "{pin}");
        }
    }
}
