//! The inspector's flags: whether requests are recorded, and where they are shown.

use std::net::SocketAddr;

use anyhow::Context as _;
use tokio::net::TcpListener;

use crate::connector;
use crate::problem::Problem;

/// The flags where an inspector is there unless it is not wanted.
#[derive(Debug, Clone, Default, clap::Args)]
pub(crate) struct InspectArgs {
    /// Where to show requests, on this machine only [default: localhost:4040 to 4049]
    #[arg(long, value_name = "ADDR", value_parser = address, env = "SNICKET_INSPECT", hide_env_values = true)]
    inspect: Option<SocketAddr>,
    /// Neither record nor show requests
    #[arg(long)]
    no_inspect: bool,
}

/// Whether there is to be an inspector.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Inspect {
    Off,
    /// At the address, or at the first usual port that is free.
    At(Option<SocketAddr>),
}

impl From<&InspectArgs> for Inspect {
    fn from(args: &InspectArgs) -> Self {
        if args.no_inspect { Self::Off } else { Self::At(args.inspect) }
    }
}

impl Inspect {
    /// Opens the inspector's listener, if there is to be one.
    pub(crate) async fn listen(self) -> anyhow::Result<Option<TcpListener>> {
        let Self::At(address) = self else { return Ok(None) };
        let listener = agent::listen_inspector(address).await.with_context(|| {
            Problem::new(
                "cannot listen for the inspector",
                "choose another address with --inspect (port 0 = any), or do without: --no-inspect",
            )
        })?;
        Ok(Some(listener))
    }
}

/// The value of `--inspect`: an address of this machine that nobody else reaches.
pub(crate) fn address(text: &str) -> Result<SocketAddr, String> {
    let address = connector::metrics_address(text)?;
    if address.ip().is_loopback() {
        Ok(address)
    } else {
        Err(format!("{text} can be reached from other machines; write localhost:PORT, and use ssh -L from elsewhere"))
    }
}

/// What a person opens.
pub(crate) fn url(address: SocketAddr) -> String {
    format!("http://{address}")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_loopback_is_taken() {
        assert_eq!(address("localhost:4040"), Ok("127.0.0.1:4040".parse().unwrap()));
        assert_eq!(address("[::1]:0"), Ok("[::1]:0".parse().unwrap()));
        for wrong in ["0.0.0.0:4040", "[::]:4040", "192.0.2.1:4040", "4040", "example.com:4040"] {
            assert!(address(wrong).is_err(), "{wrong}");
        }
    }
}
