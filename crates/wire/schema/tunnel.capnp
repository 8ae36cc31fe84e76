# The messages of the control stream and of RPC streams (section 3.1 of the protocol page).
#
# Interfaces are not declared here. On the wire an interface is its id and a method its ordinal, and both live in
# src/rpc/method.rs; what a compiler would derive for a method's parameters and results are the structs *Params and
# *Results below, whose own ids never travel. The ids of all other structs and the file's own are the protocol's.
#
# Ids of the legacy structs, which no current agent sends and which must not be given to anything new:
# 0xc082ef6e0d42ed1d, 0xf41a0f001ad49e46, 0xc793e50592935b4a, 0x84cb9536a2cf6d3c, 0xf2c68e2547ec3866,
# 0x82c325a07ad22a65, 0xcbd96442ae3bb01a.

@0xdb8274f9144abc7e;

struct ClientInfo @0x83ced0145b2f114b {
  clientId @0 :Data;
  features @1 :List(Text);
  version @2 :Text;
  arch @3 :Text;
}

struct ConnectionOptions @0xb4bf9861fe035d04 {
  client @0 :ClientInfo;
  originLocalIp @1 :Data;
  replaceExisting @2 :Bool;
  compressionQuality @3 :UInt8;
  numPreviousAttempts @4 :UInt8;
}

struct ConnectionResponse @0xdbaa9d03d52b62dc {
  result :union {
    error @0 :ConnectionError;
    connectionDetails @1 :ConnectionDetails;
  }
}

struct ConnectionError @0xf5f383d2785edb86 {
  cause @0 :Text;
  retryAfter @1 :Int64;  # nanoseconds
  shouldRetry @2 :Bool;
}

struct ConnectionDetails @0xb5f39f082b9ac18a {
  uuid @0 :Data;
  locationName @1 :Text;
  tunnelIsRemotelyManaged @2 :Bool;
}

struct TunnelAuth @0x9496331ab9cd463f {
  accountTag @0 :Text;
  tunnelSecret @1 :Data;
}

struct RegisterUdpSessionResponse @0xab6d5210c1f26687 {
  err @0 :Text;
  spans @1 :Data;
}

struct UpdateConfigurationResponse @0xdb58ff694ba05cf9 {
  latestAppliedVersion @0 :Int32;
  err @1 :Text;
}

# Parameters and results of the methods. Methods without parameters or results, and those whose only result is empty,
# use the empty struct.

struct Empty {}

struct RegisterConnectionParams {
  auth @0 :TunnelAuth;
  tunnelId @1 :Data;
  connIndex @2 :UInt8;
  options @3 :ConnectionOptions;
}

struct RegisterConnectionResults {
  result @0 :ConnectionResponse;
}

# The same towards an agent that announced the feature snicket_origin_ca. One that did not gets the struct above, which
# is the protocol's to the byte.
struct ExtendedRegistrationResults {
  result @0 :ConnectionResponse;
  originCa @1 :Text;  # PEM
}

struct UpdateLocalConfigurationParams {
  config @0 :Data;
}

struct RegisterUdpSessionParams {
  sessionId @0 :Data;
  dstIp @1 :Data;
  dstPort @2 :UInt16;
  closeAfterIdleHint @3 :Int64;  # nanoseconds
  traceContext @4 :Text = "";
}

struct RegisterUdpSessionResults {
  result @0 :RegisterUdpSessionResponse;
}

struct UnregisterUdpSessionParams {
  sessionId @0 :Data;
  message @1 :Text;
}

struct UpdateConfigurationParams {
  version @0 :Int32;
  config @1 :Data;
}

struct UpdateConfigurationResults {
  result @0 :UpdateConfigurationResponse;
}
