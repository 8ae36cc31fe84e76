use std::time::Duration;

use bytes::Bytes;
use capnp::message::Builder;
use capnp_rpc::rpc_capnp::{call, exception, message, return_};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, DuplexStream, duplex};
use uuid::Uuid;

use super::*;
use crate::identity::TunnelSecret;
use crate::registration::{Registered, Registration};
use crate::schema::{stream, tunnel_capnp as schema};

fn registration() -> Registration {
    Registration {
        account_tag: "account".into(),
        secret: TunnelSecret::generate(),
        tunnel: Uuid::new_v4(),
        connection_index: 3,
        connector: Uuid::new_v4(),
        features: vec!["one".into(), "snicket_faults".into()],
        version: "0.1.0".into(),
        arch: "linux_arm64".into(),
        origin_local_ip: Some("2001:db8::1".parse().expect("is an address")),
        previous_attempts: 255,
    }
}

fn registered() -> Registered {
    Registered { connection: Uuid::new_v4(), location: "ams1".into(), remotely_managed: true, origin_ca: None }
}

fn transmitted(mut poll: impl FnMut() -> Option<Bytes>) -> Vec<u8> {
    std::iter::from_fn(&mut poll).flatten().collect()
}

fn raw(fill: impl FnOnce(message::Builder<'_>)) -> Bytes {
    let mut builder = Builder::new_default();
    fill(builder.init_root());
    stream::write(&[], &builder)
}

/// A call as a peer might make it.
fn raw_call(question: u32, method: method::Method, fill: impl FnOnce(call::Builder<'_>)) -> Bytes {
    raw(|root| {
        let mut call = root.init_call();
        call.set_question_id(question);
        call.set_interface_id(method.interface);
        call.set_method_id(method.ordinal);
        call.reborrow().init_target().init_promised_answer().set_question_id(0);
        fill(call);
    })
}

/// A server of which the capability is held, asked for by question 0.
fn server(role: Role) -> Server {
    let mut server = Server::new(role);
    server.handle_input(&raw(|root| root.init_bootstrap().set_question_id(0)));
    assert_eq!(server.poll_event(), Ok(None));
    assert!(server.poll_transmit().is_some());
    server
}

/// The exception that a server gives to what it is fed.
fn exception_of(server: &mut Server, input: &[u8]) -> (exception::Type, String) {
    server.handle_input(input);
    assert_eq!(server.poll_event(), Ok(None));
    let answer = server.poll_transmit().expect("there is an answer");
    let answer = stream::read(&answer).expect("is a message");
    let root: message::Reader<'_> = answer.get_root().expect("is a message");
    let Ok(message::Return(answer)) = root.which() else { panic!("not an answer: {root:?}") };
    let Ok(return_::Exception(exception)) = answer.expect("is there").which() else { panic!("no exception: {root:?}") };
    let exception = exception.expect("is there");
    let reason = exception.get_reason().expect("is there").to_string().expect("is text");
    (exception.get_type().expect("is known"), reason)
}

mod cores {
    use super::*;
    use crate::rpc::method::Method;

    #[test]
    fn registrations_and_answers_lead_back() {
        let refused = |retry_after| Refused { cause: Refused::DUPLICATE.into(), retry_after };
        let ipv4 = Registration { origin_local_ip: Some([10, 0, 0, 1].into()), ..registration() };
        let bare = Registration { origin_local_ip: None, features: Vec::new(), ..registration() };
        for (registration, answer) in [
            (registration(), Ok(registered())),
            (ipv4, Err(refused(None))),
            (bare, Err(refused(Some(Duration::ZERO)))),
            (registration(), Err(refused(Some(Duration::from_nanos(1_500_000_001))))),
        ] {
            let (mut client, mut server) = (Client::new(), Server::new(Role::Edge));
            let question = client.call(Call::RegisterConnection(&registration)).expect("is open");
            server.handle_input(&transmitted(|| client.poll_transmit()));
            let Ok(Some(ServerEvent::Call(asked, call))) = server.poll_event() else { panic!("there is no call") };
            assert_eq!(call, ServerCall::RegisterConnection(Box::new(registration)));
            server.reply(asked, Reply::Registered(&answer));
            client.handle_input(&transmitted(|| server.poll_transmit()));
            let event = ClientEvent::Answer(question, Ok(Answer::Registered(answer)));
            assert_eq!(client.poll_event(), Ok(Some(event)));
        }
    }

    #[test]
    fn a_retry_time_beyond_all_bounds_is_the_longest_there_is() {
        let answer = Err(Refused { cause: "later".into(), retry_after: Some(Duration::MAX) });
        assert_eq!(retry_after_of(&answer), Some(Some(Duration::from_nanos(i64::MAX as u64))));
    }

    #[test]
    fn a_negative_retry_time_means_at_once() {
        let mut builder = Builder::new_default();
        let results = builder.init_root::<schema::register_connection_results::Builder<'_>>();
        let mut error = results.init_result().init_result().init_error();
        error.set_should_retry(true);
        error.set_retry_after(i64::MIN);
        let read = params::read_registered(builder.get_root_as_reader().expect("was made above"));
        assert_eq!(read, Ok(Err(Refused { cause: String::new(), retry_after: Some(Duration::ZERO) })));
    }

    fn retry_after_of(answer: &Result<Registered, Refused>) -> Option<Option<Duration>> {
        let mut builder = Builder::new_default();
        params::write_registered(answer, builder.init_root());
        let read = params::read_registered(builder.get_root_as_reader().expect("was made above"));
        read.expect("is readable").err().map(|refused| refused.retry_after)
    }

    #[test]
    fn the_authority_for_origins_travels_within_bounds() {
        let read = |length: usize| {
            let sent = Registered { origin_ca: Some("x".repeat(length)), ..registered() };
            let mut builder = Builder::new_default();
            params::write_registered(&Ok(sent.clone()), builder.init_root());
            let read = params::read_registered(builder.get_root_as_reader().expect("was made above"));
            read.map(|answer| answer == Ok(sent))
        };
        assert_eq!(read(700), Ok(true));
        let message = "the origins' authority is no text of at most 16384 bytes";
        assert_eq!(read(16_385), Err(ProtocolError::new(message)));
    }

    #[test]
    fn a_connection_uuid_of_another_length_is_refused() {
        let mut builder = Builder::new_default();
        let results = builder.init_root::<schema::register_connection_results::Builder<'_>>();
        results.init_result().init_result().init_connection_details().set_uuid(&[1; 15]);
        let read = params::read_registered(builder.get_root_as_reader().expect("was made above"));
        assert_eq!(read, Err(ProtocolError::new("the connection uuid has 15 bytes instead of 16")));
    }

    #[test]
    fn registrations_out_of_bounds_get_an_exception() {
        let good = registration();
        type Spoil = fn(&mut Registration);
        let cases: [(&str, Spoil); 7] = [
            ("account tag", |registration| registration.account_tag = "x".repeat(257)),
            ("account tag", |registration| registration.account_tag = "a\nb".into()),
            ("version", |registration| registration.version = "\u{1b}[2J".into()),
            ("architecture", |registration| registration.arch = "x".repeat(257)),
            ("feature", |registration| registration.features = vec!["x".repeat(257)]),
            ("features", |registration| registration.features = vec![String::new(); 65]),
            ("secret", |registration| registration.secret = TunnelSecret::new(vec![0; 1025])),
        ];
        for (what, spoil) in cases {
            let mut spoilt = good.clone();
            spoil(&mut spoilt);
            let (mut client, mut server) = (Client::new(), Server::new(Role::Edge));
            let question = client.call(Call::RegisterConnection(&spoilt)).expect("is open");
            server.handle_input(&transmitted(|| client.poll_transmit()));
            assert_eq!(server.poll_event(), Ok(None), "{what}");
            client.handle_input(&transmitted(|| server.poll_transmit()));
            let Ok(Some(ClientEvent::Answer(answered, Err(CallError::Exception(reason))))) = client.poll_event() else {
                panic!("no exception for the {what}")
            };
            assert_eq!(answered, question);
            assert!(reason.contains(what), "{reason}");
        }
    }

    #[test]
    fn ids_of_another_length_get_an_exception() {
        let input = raw_call(1, Method::REGISTER_CONNECTION, |call| {
            let params = call.init_params().init_content();
            params.init_as::<schema::register_connection_params::Builder<'_>>().set_tunnel_id(&[0; 17]);
        });
        let (kind, reason) = exception_of(&mut server(Role::Edge), &input);
        assert_eq!(kind, exception::Type::Failed);
        assert_eq!(reason, "the tunnel id has 17 bytes instead of 16");
    }

    #[test]
    fn unknown_methods_and_targets_get_an_exception() {
        const LEGACY: Method = Method { interface: 0xea58_385c_6541_6035, ordinal: 0 };
        for (role, method) in [
            (Role::Edge, LEGACY),
            (Role::Edge, Method { ordinal: 3, ..Method::REGISTER_CONNECTION }),
            (Role::Edge, Method::UPDATE_CONFIGURATION),
            (Role::Agent, Method::REGISTER_CONNECTION),
            (Role::Edge, Method::UNREGISTER_UDP_SESSION),
            (Role::Sessions, Method::REGISTER_UDP_SESSION),
        ] {
            let (kind, _) = exception_of(&mut server(role), &raw_call(1, method, |_| ()));
            assert_eq!(kind, exception::Type::Unimplemented, "{method:?}");
        }
        let targets: [fn(call::Builder<'_>); 4] = [
            |call| call.init_target().set_imported_cap(1),
            |call| call.init_target().init_promised_answer().set_question_id(7),
            |call| {
                let promise = call.init_target().init_promised_answer();
                promise.init_transform(1).get(0).set_get_pointer_field(0);
            },
            // The answer to the call itself, which is not a capability.
            |call| call.init_target().init_promised_answer().set_question_id(1),
        ];
        for target in targets {
            let input = raw_call(1, Method::UNREGISTER_CONNECTION, target);
            let (kind, reason) = exception_of(&mut server(Role::Edge), &input);
            assert_eq!((kind, reason.contains("target")), (exception::Type::Failed, true), "{reason}");
        }
    }

    #[test]
    fn capabilities_and_results_elsewhere_are_not_taken() {
        let cases: [fn(call::Builder<'_>); 2] = [
            |call| call.init_send_results_to().set_yourself(()),
            |call| call.init_params().init_cap_table(1).get(0).set_sender_hosted(5),
        ];
        for case in cases {
            let input = raw_call(1, Method::UNREGISTER_CONNECTION, case);
            assert_eq!(exception_of(&mut server(Role::Edge), &input).0, exception::Type::Unimplemented);
        }
    }

    #[test]
    fn a_capability_that_was_released_is_gone() {
        let mut server = server(Role::Edge);
        server.handle_input(&super::super::message::release(0, 1));
        let call = raw_call(1, Method::UNREGISTER_CONNECTION, |call| call.init_target().set_imported_cap(0));
        assert_eq!(exception_of(&mut server, &call).0, exception::Type::Failed);
        server.handle_input(&super::super::message::release(0, 1));
        assert!(server.poll_event().is_err());
    }

    #[test]
    fn an_abandoned_call_is_answered_and_forgotten() {
        let mut server = server(Role::Edge);
        for round in 0..MAX_ANSWERS * 2 {
            server.handle_input(&raw_call(1, Method::UNREGISTER_CONNECTION, |_| ()));
            let Ok(Some(ServerEvent::Call(question, _))) = server.poll_event() else {
                panic!("no call, round {round}")
            };
            server.handle_input(&outgoing_finish(1));
            assert_eq!(server.poll_event(), Ok(None));
            server.reply(question, Reply::Done);
            assert!(server.poll_transmit().is_some());
            server.reply(question, Reply::Done);
            assert_eq!(server.poll_transmit(), None, "there is one answer only");
        }
    }

    #[test]
    fn open_questions_are_bounded_and_distinct() {
        let bootstrap = |question| raw(|root| root.init_bootstrap().set_question_id(question));
        let mut full = Server::new(Role::Edge);
        for question in 0..MAX_ANSWERS as u32 {
            full.handle_input(&bootstrap(question));
        }
        assert_eq!(full.poll_event(), Ok(None));
        full.handle_input(&bootstrap(MAX_ANSWERS as u32));
        assert!(full.poll_event().expect_err("is one too many").to_string().contains("open"));
        full.handle_input(&bootstrap(99));
        assert_eq!(full.poll_event(), Ok(None), "the conversation is over");

        let mut twice = server(Role::Edge);
        twice.handle_input(&bootstrap(0));
        assert!(twice.poll_event().expect_err("is open").to_string().contains("question 0"));
        let abort = twice.poll_transmit().expect("the other end is told");
        let mut client = Client::new();
        client.handle_input(&abort);
        assert!(matches!(client.poll_event(), Ok(Some(ClientEvent::Ended(reason))) if reason.contains("question 0")));
    }

    #[test]
    fn what_is_not_understood_goes_back() {
        let strange = raw(|root| root.init_provide().set_question_id(77));
        let mut server = server(Role::Edge);
        server.handle_input(&strange);
        assert_eq!(server.poll_event(), Ok(None));
        let back = server.poll_transmit().expect("it goes back");
        let mut client = Client::new();
        client.handle_input(&strange);
        assert_eq!(client.poll_event(), Ok(None));
        assert_eq!(client.poll_transmit(), Some(back.clone()));

        // Of what has come back nothing comes back again.
        client.handle_input(&back);
        server.handle_input(&back);
        assert_eq!((client.poll_event(), client.poll_transmit()), (Ok(None), None));
        assert_eq!((server.poll_event(), server.poll_transmit()), (Ok(None), None));
    }

    #[test]
    fn disembargos_are_reflected() {
        let mut server = server(Role::Edge);
        server.handle_input(&raw(|root| {
            let mut disembargo = root.init_disembargo();
            disembargo.reborrow().init_target().set_imported_cap(0);
            disembargo.init_context().set_sender_loopback(9);
        }));
        assert_eq!(server.poll_event(), Ok(None));
        let reflected = server.poll_transmit().expect("it is reflected");
        assert_eq!(
            reflected,
            raw(|root| {
                let mut disembargo = root.init_disembargo();
                disembargo.reborrow().init_target().set_imported_cap(0);
                disembargo.init_context().set_receiver_loopback(9);
            })
        );
    }

    #[test]
    fn a_server_that_knows_no_such_message_fails_the_call() {
        let mut client = Client::new();
        let question = client.call(Call::UnregisterConnection).expect("is open");
        let sent = transmitted(|| client.poll_transmit());
        let mut input = input::Input::default();
        input.push(&sent);
        while let Ok(Some(original)) = input.next() {
            let original = stream::read(&original).expect("is a message");
            let root = original.get_root().expect("is a message");
            client.handle_input(&super::super::message::unimplemented(root).expect("can be copied"));
        }
        assert!(matches!(
            client.poll_event(),
            Ok(Some(ClientEvent::Answer(answered, Err(CallError::Exception(_))))) if answered == question
        ));
        assert!(matches!(client.call(Call::UnregisterConnection), Err(CallError::Exception(_))));
    }

    #[test]
    fn answers_that_were_not_asked_for_end_the_conversation() {
        let mut client = Client::new();
        client.handle_input(&super::super::message::results(5, |_| ()));
        assert!(client.poll_event().is_err());
        assert!(matches!(client.call(Call::UnregisterConnection), Err(CallError::Lost(_))));

        let mut client = Client::new();
        client.call(Call::UnregisterConnection).expect("is open");
        client.handle_input(&super::super::message::results(0, |_| ()));
        assert!(client.poll_event().expect_err("holds no capability").to_string().contains("capability"));
    }

    #[test]
    fn messages_beyond_the_limit_are_refused_by_their_head() {
        let words = u32::try_from(MAX_MESSAGE / 8).expect("is small");
        for (words, refused) in [(words - 1, false), (words, true)] {
            let mut head = [0; 8];
            head[4..].copy_from_slice(&words.to_le_bytes());
            let (mut client, mut server) = (Client::new(), Server::new(Role::Agent));
            client.handle_input(&head);
            server.handle_input(&head);
            assert_eq!((client.poll_event().is_err(), server.poll_event().is_err()), (refused, refused), "{words}");
        }
    }

    fn outgoing_finish(question: u32) -> Bytes {
        super::super::message::finish(question, false)
    }
}

mod streams {
    use super::*;

    fn ends() -> (ControlClient<DuplexStream>, ControlServer<DuplexStream>) {
        // Less than any message, so that every read and write is a partial one.
        let (agent, edge) = duplex(16);
        (ControlClient::new(agent, CALL_TIMEOUT), ControlServer::new(edge))
    }

    #[tokio::test]
    async fn a_whole_conversation() {
        let (mut client, mut server) = ends();
        let (registration, registered) = (registration(), registered());
        let agent = async {
            assert_eq!(client.register(&registration).await, Ok(registered.clone()));
            assert_eq!(client.update_local_configuration(b"{}").await, Ok(()));
            assert_eq!(
                client.update_local_configuration(b"[]").await,
                Err(CallError::Exception("not an object".into()))
            );
            assert_eq!(client.unregister(Duration::from_secs(30)).await, Ok(()));
            client.shutdown().await;
        };
        let edge = async {
            let Ok(Some(ControlCall::Register(question, asked))) = server.next().await else { panic!("no call") };
            assert_eq!(*asked, registration);
            server.reply_register(question, &Ok(registered.clone())).await.expect("is sent");
            for (config, answer) in [("{}", Ok(())), ("[]", Err("not an object"))] {
                let Ok(Some(ControlCall::LocalConfiguration(question, asked))) = server.next().await else {
                    panic!("no call")
                };
                assert_eq!(asked, config);
                server.reply_done(question, answer).await.expect("is sent");
            }
            let Ok(Some(ControlCall::Unregister(question))) = server.next().await else { panic!("no call") };
            server.reply_done(question, Ok(())).await.expect("is sent");
            assert_eq!(server.next().await, Ok(None));
            assert_eq!(server.next().await, Ok(None));
        };
        tokio::join!(agent, edge);
    }

    #[tokio::test]
    async fn a_refusal_and_an_end_without_unregister() {
        let (mut client, mut server) = ends();
        let refused = Refused { cause: "Unauthorized: no such tunnel".into(), retry_after: None };
        let registration = registration();
        let agent = async {
            let answer = client.register(&registration).await;
            assert_eq!(answer, Err(RegisterError::Refused(refused.clone())));
            client.shutdown().await;
        };
        let edge = async {
            let Ok(Some(ControlCall::Register(question, _))) = server.next().await else { panic!("no call") };
            server.reply_register(question, &Err(refused.clone())).await.expect("is sent");
            assert_eq!(server.next().await, Ok(None), "an abort is an end in order");
        };
        tokio::join!(agent, edge);
    }

    #[tokio::test]
    async fn an_agent_that_vanishes_is_not_one_that_leaves() {
        let (client, mut server) = ends();
        drop(client);
        assert!(matches!(server.next().await, Err(CallError::Lost(_))));

        let (mut client, mut server) = ends();
        let agent = async {
            client.unregister(CALL_TIMEOUT).await.expect("is answered");
            drop(client);
        };
        let edge = async {
            let Ok(Some(ControlCall::Unregister(question))) = server.next().await else { panic!("no call") };
            server.reply_done(question, Ok(())).await.expect("is sent");
            assert_eq!(server.next().await, Ok(None), "it had said goodbye");
        };
        tokio::join!(agent, edge);
    }

    #[tokio::test]
    async fn an_abort_for_another_reason_is_not_an_end_in_order() {
        let (mut agent, edge) = duplex(1024);
        let mut server = ControlServer::new(edge);
        agent.write_all(&super::super::message::abort("something is wrong")).await.expect("has room");
        assert!(matches!(server.next().await, Err(CallError::Lost(reason)) if reason.contains("something is wrong")));
    }

    #[tokio::test]
    async fn nonsense_is_answered_with_an_abort() {
        let (mut agent, edge) = duplex(1024);
        let mut server = ControlServer::new(edge);
        agent.write_all(&[0xff; 64]).await.expect("has room");
        assert!(matches!(server.next().await, Err(CallError::Protocol(_))));
        drop(server);
        let mut sent = Vec::new();
        agent.read_to_end(&mut sent).await.expect("is readable");
        let mut client = Client::new();
        client.handle_input(&sent);
        assert!(matches!(client.poll_event(), Ok(Some(ClientEvent::Ended(reason))) if reason.contains("too long")));
    }

    #[tokio::test(start_paused = true)]
    async fn calls_have_a_time_limit() {
        let (agent, edge) = duplex(64 * 1024);
        let longer = 2 * CALL_TIMEOUT;
        let mut client = ControlClient::new(agent, longer);
        let timeout = RegisterError::Call(CallError::Timeout(longer));
        assert_eq!(client.register(&registration()).await, Err(timeout));
        let limit = Duration::from_secs(30);
        assert_eq!(client.unregister(limit).await, Err(CallError::Timeout(limit)));

        // The answer that comes too late does not become the answer to a later call.
        let mut server = ControlServer::new(edge);
        let late = async {
            let Ok(Some(ControlCall::Register(first, _))) = server.next().await else { panic!("no call") };
            let Ok(Some(ControlCall::Unregister(second))) = server.next().await else { panic!("no call") };
            let Ok(Some(ControlCall::LocalConfiguration(third, _))) = server.next().await else { panic!("no call") };
            server.reply_done(third, Err("third")).await.expect("is sent");
            server.reply_done(second, Ok(())).await.expect("is sent");
            server.reply_register(first, &Ok(registered())).await.expect("is sent");
            server
        };
        let (answer, server) = tokio::join!(client.update_local_configuration(b"{}"), late);
        assert_eq!(answer, Err(CallError::Exception("third".into())));
        drop(server);
        assert!(matches!(client.ended().await, CallError::Lost(_)));
    }

    #[tokio::test(start_paused = true)]
    async fn a_peer_that_reads_nothing_is_given_up() {
        let (agent, _edge) = duplex(16);
        let mut client = ControlClient::new(agent, CALL_TIMEOUT);
        let answer = client.unregister(Duration::from_secs(3600)).await;
        assert!(matches!(answer, Err(CallError::Lost(reason)) if reason.contains("not read on")));
    }

    #[tokio::test]
    async fn a_call_is_not_lost_when_waiting_for_it_is_given_up() {
        let (mut client, mut server) = ends();
        let agent = tokio::spawn(async move { client.unregister(CALL_TIMEOUT).await });
        let call = loop {
            // Polled once and dropped, over and over.
            let next = tokio::select! {
                biased;
                call = server.next() => Some(call),
                () = std::future::ready(()) => None,
            };
            match next {
                Some(call) => break call,
                None => tokio::task::yield_now().await,
            }
        };
        let Ok(Some(ControlCall::Unregister(question))) = call else { panic!("no call: {call:?}") };
        server.reply_done(question, Ok(())).await.expect("is sent");
        assert_eq!(agent.await.expect("does not panic"), Ok(()));
    }

    #[tokio::test]
    async fn configurations_are_pushed() {
        let (edge, agent) = duplex(16);
        let (mut client, mut server) = (ConfigurationClient::new(edge), AgentServer::new(agent));
        let edge = async {
            assert_eq!(client.update(3, br#"{"ingress":[]}"#).await, Ok(Ok(3)));
            assert_eq!(client.update(i32::MAX, b"").await, Ok(Err((3, "not JSON".into()))));
            client.shutdown().await;
        };
        let agent = async {
            let Ok(Some(AgentCall::Update(question, 3, config))) = server.next().await else { panic!("no push") };
            assert_eq!(&config[..], br#"{"ingress":[]}"#);
            server.reply_configuration(question, &Ok(3)).await.expect("is sent");
            let Ok(Some(AgentCall::Update(question, i32::MAX, config))) = server.next().await else {
                panic!("no push")
            };
            assert_eq!(&config[..], b"");
            server.reply_configuration(question, &Err((3, "not JSON".into()))).await.expect("is sent");
            assert_eq!(server.next().await, Ok(None));
        };
        tokio::join!(edge, agent);
    }

    #[tokio::test]
    async fn sessions_are_made_and_ended_from_either_side() {
        let session = UdpSession {
            id: Uuid::from_u128(5),
            destination: "[2001:db8::7]:53".parse().expect("is an address"),
            idle: Duration::from_secs(9),
        };
        let (edge, agent) = duplex(16);
        let (mut client, mut server) = (SessionClient::new(edge), AgentServer::new(agent));
        let edge = async {
            assert_eq!(client.register(&session).await, Ok(Ok(())));
            assert_eq!(client.register(&session).await, Ok(Err("no more of them".into())));
            assert_eq!(client.unregister(session.id, "idle").await, Ok(()));
            client.shutdown().await;
        };
        let agent = async {
            for answer in [Ok(()), Err("no more\nof them")] {
                let Ok(Some(AgentCall::RegisterSession(question, asked))) = server.next().await else { panic!("none") };
                assert_eq!(asked, session);
                server.reply_session(question, answer).await.expect("is sent");
            }
            let Ok(Some(AgentCall::UnregisterSession(question, id, why))) = server.next().await else { panic!("none") };
            assert_eq!((id, &*why), (session.id, "idle"));
            server.reply_done(question).await.expect("is sent");
            assert_eq!(server.next().await, Ok(None));
        };
        tokio::join!(edge, agent);

        let (agent, edge) = duplex(16);
        let (mut client, mut server) = (SessionClient::new(agent), SessionServer::new(edge));
        let agent = async {
            assert_eq!(client.unregister(session.id, "session idle for 2s").await, Ok(()));
            client.shutdown().await;
        };
        let edge = async {
            assert_eq!(server.next().await, Ok(Some((session.id, "session idle for 2s".into()))));
            assert_eq!(server.next().await, Ok(None));
        };
        tokio::join!(agent, edge);
    }

    #[test]
    fn ends_can_be_given_to_a_task() {
        fn is_send<T: Send + 'static>() {}
        is_send::<ControlClient<DuplexStream>>();
        is_send::<ControlServer<DuplexStream>>();
        is_send::<ConfigurationClient<DuplexStream>>();
        is_send::<AgentServer<DuplexStream>>();
        is_send::<SessionClient<DuplexStream>>();
        is_send::<SessionServer<DuplexStream>>();
    }
}
