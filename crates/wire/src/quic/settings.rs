/// The protocol name that both ends offer in the QUIC handshake (section 2.2).
pub const ALPN: &[u8] = b"argotunnel";

/// Settings of a QUIC endpoint that listens for agents.
pub fn edge_transport_config() -> quinn::TransportConfig {
    todo!()
}

/// Settings of a QUIC connection that an agent dials.
pub fn agent_transport_config() -> quinn::TransportConfig {
    todo!()
}

/// Settings of the endpoint that an agent dials from: zero-length source connection ids.
///
/// Without connection ids a connection is told by its addresses, so an endpoint holds one connection per edge address.
pub fn agent_endpoint_config() -> quinn::EndpointConfig {
    todo!()
}
