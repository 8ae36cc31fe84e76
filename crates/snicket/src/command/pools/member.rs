//! `pools add`, `remove`, `set-weight` and `drain`, and members switched on and off.

use serde_json::{Value, json};

use crate::problem::Problem;
use crate::screen::Screen;
use crate::v4::{Api, Member, Pool};

pub(super) const ADD_EXAMPLES: &str = "\
Examples:
  snicket pools add web 198.51.100.7:8080 --name oslo
  snicket pools add web app.example.net --weight 0.5 --host app.internal
  snicket tunnel route lb berlin app.example.com web     a tunnel, instead

Addresses in networks of one's own need `snicket up --origin-networks`.";

/// Arguments of `pools add`.
#[derive(Debug, clap::Args)]
pub(super) struct Add {
    /// Name or id
    pool: String,
    /// An IP address or a host name, with a port or without
    address: String,
    /// For people
    #[arg(long, value_name = "NAME")]
    name: Option<String>,
    /// 0 to 1, compared with those of the others [default: 1]
    #[arg(long, value_name = "WEIGHT", value_parser = weight)]
    weight: Option<f64>,
    /// What it is told of the host, instead of what the visitor asked for
    #[arg(long, value_name = "HOST")]
    host: Option<String>,
}

pub(super) const REMOVE_EXAMPLES: &str = "\
Examples:
  snicket pools remove web oslo
  snicket pools remove web 198.51.100.7:8080";

pub(super) const WEIGHT_EXAMPLES: &str = "\
Examples:
  snicket pools set-weight web oslo 0.1     a tenth of what one with weight 1 gets
  snicket pools set-weight web oslo 1";

pub(super) const DRAIN_EXAMPLES: &str = "\
Example:
  snicket pools drain web oslo

Its weight is 0 then, and `snicket pools set-weight` gives it visitors again.";

/// A weight as the API takes it.
pub(super) fn weight(text: &str) -> Result<f64, String> {
    let weight = text.parse().ok().filter(|weight| (0.0..=1.0).contains(weight));
    weight.ok_or_else(|| "a number from 0 to 1 is wanted".to_owned())
}

/// Host and port of what people write: `host`, `host:port`, `192.0.2.1:80`, `2001:db8::1`, `[2001:db8::1]:80`.
fn place(text: &str) -> anyhow::Result<(&str, u16)> {
    let bare = |text: &str| text.parse::<std::net::Ipv6Addr>().is_ok();
    let (host, port) = match text.rsplit_once(':') {
        Some((host, port)) if !bare(text) && !text.ends_with(']') => (host, Some(port)),
        _ => (text, None),
    };
    let host = host.strip_prefix('[').and_then(|host| host.strip_suffix(']')).unwrap_or(host);
    let port = port.map_or(Some(0), |port| port.parse().ok().filter(|port| *port != 0));
    match port {
        Some(port) if !host.is_empty() && !host.contains('/') => Ok((host, port)),
        _ => {
            let advice = "write an address or a host name, and its port if it has one: 198.51.100.7:8080";
            Err(Problem::usage(format!("{text:?} is no address of a member"), advice).into())
        }
    }
}

/// Adds one.
pub(super) async fn add(args: Add, api: &Api, screen: Screen) -> anyhow::Result<()> {
    let (host, port) = place(&args.address)?;
    let pool = api.pool(&args.pool).await?;
    let mut origin = json!({ "address": host, "port": port, "name": args.name.unwrap_or_default() });
    if let Some(weight) = args.weight {
        origin["weight"] = weight.into();
    }
    if let Some(host) = args.host {
        origin["header"] = json!({ "Host": [host] });
    }
    let changed = api.add_member(&pool, origin).await?;
    let known: Vec<&String> = pool.members.iter().map(|member| &member.id).collect();
    for member in changed.members.iter().filter(|member| !known.contains(&&member.id)) {
        tell("member_added", &changed, member, screen, format!("Added {} to the pool {}", member.title(), pool.name));
    }
    if changed.load_balancers.is_empty() {
        screen.say("No name leads to the pool yet; docs/balance.md says how one does.");
    }
    Ok(())
}

/// Takes them out.
pub(super) async fn remove(pool: &str, members: &[String], api: &Api, screen: Screen) -> anyhow::Result<()> {
    let pool = api.pool(pool).await?;
    // All are looked up before one is taken out.
    let members: Vec<&Member> = members.iter().map(|member| pool.member(member)).collect::<anyhow::Result<_>>()?;
    for member in members {
        api.remove_member(&pool, member).await?;
        tell("member_removed", &pool, member, screen, format!("Took {} out of the pool {}", member.title(), pool.name));
    }
    Ok(())
}

/// Gives it this weight.
pub(super) async fn set_weight(pool: &str, member: &str, weight: f64, api: &Api, screen: Screen) -> anyhow::Result<()> {
    let pool = api.pool(pool).await?;
    let member = pool.member(member)?;
    let changed = change(&pool, member, json!({ "weight": weight }), api).await?;
    let wanted = changed
        .1
        .wanted_share
        .map_or_else(String::new, |share| format!(", which is {:.1} % of the visitors", share * 100.0));
    let said = format!("{} has the weight {weight} in the pool {}{wanted}", member.title(), pool.name);
    tell("member_changed", &changed.0, &changed.1, screen, said);
    Ok(())
}

/// Leads nobody new there.
pub(super) async fn drain(pool: &str, member: &str, api: &Api, screen: Screen) -> anyhow::Result<()> {
    let pool = api.pool(pool).await?;
    let member = pool.member(member)?;
    let changed = change(&pool, member, json!({ "weight": 0 }), api).await?;
    // What nobody can give back is not told.
    let weight = if member.weight == 0.0 { 1.0 } else { member.weight };
    let said = format!(
        "Nobody new is led to {0} in the pool {1}, as long as another member is well; who has a session there stays.\n\n  \
         snicket pools set-weight {1} {0} {weight}     has it back\n  snicket pools disable {1} {0}            ends its \
         sessions, too",
        member.title(),
        pool.name
    );
    tell("member_changed", &changed.0, &changed.1, screen, said);
    Ok(())
}

/// Switches it on or off.
pub(super) async fn enable(pool: &Pool, member: &str, enabled: bool, api: &Api, screen: Screen) -> anyhow::Result<()> {
    let member = pool.member(member)?;
    let changed = change(pool, member, json!({ "enabled": enabled }), api).await?;
    let said = match (enabled, changed.1.weight == 0.0) {
        (true, false) => format!("Visitors are led to {} in the pool {} again", member.title(), pool.name),
        (true, true) => format!(
            "{0} is on again, with the weight 0; `snicket pools set-weight {1} {0} 1` gives it visitors",
            member.title(),
            pool.name
        ),
        (false, _) => format!("Nobody is led to {} in the pool {} any more", member.title(), pool.name),
    };
    tell("member_changed", &changed.0, &changed.1, screen, said);
    Ok(())
}

/// The pool and the member after a change.
async fn change(pool: &Pool, member: &Member, change: Value, api: &Api) -> anyhow::Result<(Pool, Member)> {
    let changed = api.change_member(pool, member, change).await?;
    let member = changed.members.iter().find(|other| other.id == member.id).unwrap_or(member).clone();
    Ok((changed, member))
}

fn tell(event: &str, pool: &Pool, member: &Member, screen: Screen, said: String) {
    screen.event(&json!({ "event": event, "pool": pool.name, "member": member }));
    screen.say(said);
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_are_read_as_people_write_them() {
        for (text, host, port) in [
            ("198.51.100.7", "198.51.100.7", 0),
            ("198.51.100.7:8080", "198.51.100.7", 8080),
            ("app.example.net:80", "app.example.net", 80),
            ("2001:db8::1", "2001:db8::1", 0),
            ("[2001:db8::1]:80", "2001:db8::1", 80),
            ("[2001:db8::1]", "2001:db8::1", 0),
        ] {
            assert_eq!(place(text).ok(), Some((host, port)), "{text}");
        }
        for text in ["", ":80", "a:b", "a:0", "a:65536", "http://a.test", "http://a.test:80"] {
            assert!(place(text).is_err(), "{text}");
        }
        assert_eq!(["0", "1", "0.25"].map(weight), [Ok(0.0), Ok(1.0), Ok(0.25)]);
        assert!(["-1", "1.5", "NaN", "x", "inf"].iter().all(|text| weight(text).is_err()));
    }
}
