//! Interface ids and method ordinals (section 3.1). A call names the interface that declares its method.

/// A method as a call names it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Method {
    pub(super) interface: u64,
    pub(super) ordinal: u16,
}

const REGISTRATION_SERVER: u64 = 0xf716_95ec_7fe8_5497;
const SESSION_MANAGER: u64 = 0x8394_45a5_9fb0_1686;
const CONFIGURATION_MANAGER: u64 = 0xb48e_dfbd_aa25_db04;

impl Method {
    pub(super) const REGISTER_CONNECTION: Self = Self { interface: REGISTRATION_SERVER, ordinal: 0 };
    pub(super) const UNREGISTER_CONNECTION: Self = Self { interface: REGISTRATION_SERVER, ordinal: 1 };
    pub(super) const UPDATE_LOCAL_CONFIGURATION: Self = Self { interface: REGISTRATION_SERVER, ordinal: 2 };
    pub(super) const REGISTER_UDP_SESSION: Self = Self { interface: SESSION_MANAGER, ordinal: 0 };
    pub(super) const UNREGISTER_UDP_SESSION: Self = Self { interface: SESSION_MANAGER, ordinal: 1 };
    pub(super) const UPDATE_CONFIGURATION: Self = Self { interface: CONFIGURATION_MANAGER, ordinal: 0 };
}
