//! Permission groups, under the names and ids by which tools know them.

use registry::{Area, Permission};
use serde_json::{Value, json};

/// Permissions under a name.
pub(super) struct Group {
    pub(super) id: &'static str,
    pub(super) name: &'static str,
    pub(super) permission: Permission,
    scope: &'static str,
}

const ZONE: &str = "com.cloudflare.api.account.zone";
const ACCOUNT: &str = "com.cloudflare.api.account";
const USER: &str = "com.cloudflare.api.user";

const fn read(id: &'static str, name: &'static str, area: Area, scope: &'static str) -> Group {
    Group { id, name, permission: Permission { area, write: false }, scope }
}

const fn write(id: &'static str, name: &'static str, area: Area, scope: &'static str) -> Group {
    Group { id, name, permission: Permission { area, write: true }, scope }
}

/// All of them: reading and writing in every area.
pub(super) const GROUPS: [Group; 28] = [
    read("7ea222f6d5064cfa89ea366d7c1fee89", "Access: Apps and Policies Read", Area::Access, ACCOUNT),
    write("1e13c5124ca64b72b1969a67e8829049", "Access: Apps and Policies Write", Area::Access, ACCOUNT),
    read("c1fde68c7bcc44588cbb6ddbc16d6480", "Account Settings Read", Area::Account, ACCOUNT),
    write("1af1fa2adc104452b74a9a3364202f20", "Account Settings Write", Area::Account, ACCOUNT),
    read("0cc3a61731504c89b99ec1be78b77aa0", "API Tokens Read", Area::Tokens, USER),
    write("686d18d5ac6c441c867cbf6771e58a0a", "API Tokens Write", Area::Tokens, USER),
    read("5d62a8b0c9c94d7ba2f2e5c41b5d0c01", "Cache Settings Read", Area::Cache, ZONE),
    write("e17beae8b8cb423a99b1730f21238bed", "Cache Purge", Area::Cache, ZONE),
    read("efea2ab8357b47888938f101ae5e053f", "Cloudflare Tunnel Read", Area::Tunnels, ACCOUNT),
    write("c07321b023e944ff818fec44d8203567", "Cloudflare Tunnel Write", Area::Tunnels, ACCOUNT),
    read("5d62a8b0c9c94d7ba2f2e5c41b5d0c02", "Devices Read", Area::Devices, ACCOUNT),
    write("5d62a8b0c9c94d7ba2f2e5c41b5d0c03", "Devices Write", Area::Devices, ACCOUNT),
    read("82e64a83756745bbbb1c9c2701bf816b", "DNS Read", Area::Dns, ZONE),
    write("4755a26eedb94da69e1066d98aa820be", "DNS Write", Area::Dns, ZONE),
    read("e9a975f628014f1d85b723993116f7d5", "Load Balancers Read", Area::LoadBalancers, ZONE),
    write("6d7f2f5f5b1d4a0e9081fdc98d432fd1", "Load Balancers Write", Area::LoadBalancers, ZONE),
    read("9d24387c6e8544e2bc4024a03991339f", "Load Balancing: Monitors and Pools Read", Area::Pools, ACCOUNT),
    write("d2a1802cc9a34e30852f8b33869b2f3c", "Load Balancing: Monitors and Pools Write", Area::Pools, ACCOUNT),
    read("5d62a8b0c9c94d7ba2f2e5c41b5d0c04", "Rules Read", Area::Rules, ZONE),
    write("5d62a8b0c9c94d7ba2f2e5c41b5d0c05", "Rules Write", Area::Rules, ZONE),
    read("5d62a8b0c9c94d7ba2f2e5c41b5d0c06", "Spectrum Read", Area::Applications, ZONE),
    write("5d62a8b0c9c94d7ba2f2e5c41b5d0c07", "Spectrum Write", Area::Applications, ZONE),
    read("7b7216b327b04b8fbc8f524e1f9b7531", "SSL and Certificates Read", Area::Certificates, ZONE),
    write("c03055bc037c4ea9afb9a9f104b7b721", "SSL and Certificates Write", Area::Certificates, ZONE),
    read("c8fed203ed3043cba015a93ad1616f1f", "Zone Read", Area::Zone, ZONE),
    write("e6d2666161e84845a636613608cee8d5", "Zone Write", Area::Zone, ZONE),
    read("517b21aee92c4d89936c976ba6e4be55", "Zone Settings Read", Area::ZoneSettings, ZONE),
    write("3030687196b94b638145a3953da2b699", "Zone Settings Write", Area::ZoneSettings, ZONE),
];

impl Group {
    pub(super) fn shown(&self) -> Value {
        json!({ "id": self.id, "name": self.name, "scopes": [self.scope] })
    }
}

/// The group with this id, or else this name.
pub(super) fn group(id: Option<&str>, name: Option<&str>) -> Option<&'static Group> {
    match id {
        Some(id) => GROUPS.iter().find(|group| group.id == id),
        None => GROUPS.iter().find(|group| name.is_some_and(|name| group.name.eq_ignore_ascii_case(name))),
    }
}

/// The group for a permission.
pub(super) fn group_of(permission: Permission) -> Option<&'static Group> {
    GROUPS.iter().find(|group| group.permission == permission)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use super::*;

    #[test]
    fn every_group_is_one_permission_with_an_id_and_a_name_of_its_own() {
        assert_eq!(GROUPS.iter().map(|group| group.id).collect::<HashSet<_>>().len(), GROUPS.len());
        assert_eq!(GROUPS.iter().map(|group| group.name).collect::<HashSet<_>>().len(), GROUPS.len());
        assert_eq!(GROUPS.iter().map(|group| group.permission).collect::<HashSet<_>>().len(), GROUPS.len());
        assert!(GROUPS.iter().all(|group| group.id.len() == 32));
    }
}
