//! Who has the next turn on a thread.
//!
//! The runtime lets tasks run in the order in which they became ready. A request takes several turns, and waits in each behind
//! whoever is ready: fifty connections that always have something to do make it fifty times as slow as one does. Here those who
//! have taken more than their share, and those of whom nothing good is known yet, wait in a line of their own, from which a few are
//! called between two looks for news from the network, so that there are never more than a few of them before anybody else. They are
//! called in turn by [`Account`], so that who comes with a thousand connections waits longer for each, and not everybody else; and those
//! of whom something good is known in turn with all others, so that who comes from a thousand networks keeps no busy tenant waiting.
//! While there is nobody for whom they would have to, they do not wait: what is ready together is sent on together, and costs less.
//! Newcomers wait for all of whom something good is known, and those for who takes little. What takes long is done in line whoever
//! wants it ([`stand_in_line`]).

use std::cell::Cell;
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::pin::Pin;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use futures_util::task::AtomicWaker;
use prometheus::IntGauge;
use tokio::task::yield_now;

/// The part of a core that an account may take for long, as one of so many: what it has taken is forgiven at this rate. Some hundred
/// requests a second.
const SHARE: u32 = 32;

/// Time of a thread that an account may have taken beyond its share before its tasks wait in line: a few requests at once.
const LIMIT: Duration = Duration::from_micros(500);

/// More than this is not held against anybody, so that who has taken all there was for an hour is like everybody else 50 ms later.
const MOST: Duration = Duration::from_millis(2);

/// Those in line that are called between two looks for news from the network, for each core: enough that the looks, of some µs, do not
/// count beside their turns, of some ten each.
const AT_ONCE: usize = 4;

/// Time that the turns of those in line are to take between two looks. Where they take longer, as handshakes do, fewer are called.
const BETWEEN_LOOKS: Duration = Duration::from_micros(200);

/// After so long those are called before their turn for whom something piles up meanwhile ([`Fair::urgent`]). At 1 Gbit/s these are 600 KB,
/// and a hundred turns fit into it.
const PATIENCE: Duration = Duration::from_millis(5);

/// So many times as those whose turn it is are called who have waited that long: together they take some 1 ms between two looks.
const URGENT_AT_ONCE: usize = 4;

/// For so long after somebody has had a turn for whom others wait, they do. Longer than the pauses between the turns of one request, and
/// between the requests of who is busy.
const CALM: Duration = Duration::from_millis(100);

/// Networks of which something good is known are kept until so many others have come, or twice as many: with some 200 bytes each no more
/// than 4 MB.
const KNOWN: usize = 8_192;

/// Networks of which nothing is known are looked through for those who have left whenever there are twice as many as after the last
/// look, and no fewer than these.
const PRESENT: usize = 1_024;

thread_local! {
    /// What the turn is that a task of this thread has now.
    static TURN: Cell<Turn> = const { Cell::new(Turn::InLine) };
}

/// A turn of a task, for what the task does in it.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Turn {
    /// The account need not wait.
    AtOnce,
    /// The account stood in line for it, or would have if there were one.
    InLine,
    /// The task wants to stand in line for the next.
    Ends,
}

/// The line of a node, and the accounts of those who come to it.
#[derive(Debug, Clone)]
pub(crate) struct Fairness(Arc<Shared>);

#[derive(Debug)]
struct Shared {
    line: Mutex<Line>,
    start: Instant,
    /// Who takes little.
    light: Presence,
    /// Of whom something good is known.
    known: Presence,
    /// What turns of those in line have taken of late, on average, in ns.
    turn: AtomicU64,
    networks: Mutex<Networks>,
    /// Tells how many are known.
    known_networks: IntGauge,
}

/// When some of a kind had a turn, in ms from 1 ms before the start; 0: never.
#[derive(Debug, Default)]
struct Presence(AtomicU64);

#[derive(Debug)]
struct Line {
    cores: usize,
    /// Those who may still go without waiting.
    left: usize,
    /// Whether there is a task that calls.
    is_paced: bool,
    /// The accounts some of whose tasks wait.
    queues: Queues,
    /// Those who are called before their turn from then on, in the order of their coming.
    urgent: VecDeque<(Instant, Weak<Place>)>,
}

/// Accounts in the order of their turns. Who gets known while it waits is called from where it stands.
#[derive(Debug, Default)]
struct Queues {
    known: VecDeque<Account>,
    unknown: VecDeque<Account>,
    /// Whether the last turn was that of one who is known.
    was_known: bool,
}

/// Whose turns are counted together.
#[derive(Debug, Clone)]
pub(crate) struct Account(Arc<Ledger>);

/// On whose account the turns of a task go: another one once more is known of whoever it works for.
#[derive(Debug, Clone)]
pub(crate) struct Payer(Arc<ArcSwap<Ledger>>);

#[derive(Debug)]
struct Ledger {
    is_known: AtomicBool,
    debt: Mutex<Debt>,
    /// Its tasks in line. Changes only while the line is held.
    waiting: Mutex<VecDeque<Arc<Place>>>,
}

/// A place in line.
#[derive(Debug, Default)]
struct Place {
    is_called: AtomicBool,
    waker: AtomicWaker,
}

/// What an account has taken beyond its share.
#[derive(Debug)]
struct Debt {
    debt: Duration,
    since: Instant,
}

/// The accounts of networks.
#[derive(Debug, Default)]
struct Networks {
    /// Those of whom something good is known: who came or got known of late, and who did before them.
    recent: HashMap<IpAddr, Account>,
    earlier: HashMap<IpAddr, Account>,
    /// The others, while they are here.
    present: HashMap<IpAddr, Weak<Ledger>>,
    /// So many may be present before those who have left are looked for.
    bound: usize,
}

/// Nothing panics while one of these is held.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Whose visitors have one account: a /24 of IPv4, or a /48 of IPv6, as they are given to one site. Wider than for the places of
/// connections, which are refused to nobody for what a neighbour does; here a neighbour makes one wait a little.
fn network(address: IpAddr) -> IpAddr {
    match address.to_canonical() {
        IpAddr::V4(address) => Ipv4Addr::from_bits(address.to_bits() & !0xff).into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !(u128::MAX >> 48)).into(),
    }
}

impl Fairness {
    /// Nobody has come yet. How many networks are known is told to the gauge.
    pub(crate) fn new(known_networks: IntGauge) -> Self {
        let cores = std::thread::available_parallelism().map_or(1, std::num::NonZero::get);
        let line =
            Line { cores, left: cores * AT_ONCE, is_paced: false, queues: Queues::default(), urgent: VecDeque::new() };
        Self(Arc::new(Shared {
            line: Mutex::new(line),
            start: Instant::now(),
            light: Presence::default(),
            known: Presence::default(),
            turn: AtomicU64::new(0),
            networks: Mutex::default(),
            known_networks,
        }))
    }

    /// The account of those who come from where this address is.
    pub(crate) fn of(&self, address: IpAddr) -> Account {
        lock(&self.0.networks).of(network(address))
    }

    /// Something good is known of those who come from where this address is: somebody of them has been served by an origin, has
    /// registered an agent or has shown a token.
    pub(crate) fn prove(&self, address: IpAddr) {
        let mut networks = lock(&self.0.networks);
        networks.prove(network(address));
        self.0.known_networks.set(networks.count());
    }

    /// Who comes from where this address is has cost something and wanted nothing. Nothing good is known of them until the next time, so
    /// that a crowd that has been served once is not before everybody else in whatever it does from then on. Not for what may come
    /// from a forged address.
    pub(crate) fn doubt(&self, address: IpAddr) {
        let mut networks = lock(&self.0.networks);
        networks.doubt(network(address));
        self.0.known_networks.set(networks.count());
    }

    /// Somebody has a turn who needs not wait.
    fn saw_light(&self, now: Instant) {
        let now = self.milliseconds(now);
        self.0.light.mark(now);
        self.0.known.mark(now);
    }

    /// Whether there is nobody for whom who has this account would have to wait.
    fn is_calm(&self, account: &Account, now: Instant) -> bool {
        let awaited = if account.is_known() { &self.0.light } else { &self.0.known };
        awaited.is_over(self.milliseconds(now))
    }

    fn milliseconds(&self, now: Instant) -> u64 {
        now.saturating_duration_since(self.0.start).as_millis() as u64 + 1
    }

    /// A place to wait in, or none for who may go at once.
    fn enter(&self, account: &Account, is_urgent: bool, now: Instant) -> Option<Arc<Place>> {
        if account.is_known() {
            self.0.known.mark(self.milliseconds(now));
        }
        if self.is_calm(account, now) {
            return None;
        }
        let mut line = lock(&self.0.line);
        let may_go = line.queues.is_empty() && line.left > 0;
        let place = if may_go {
            line.left -= 1;
            None
        } else {
            let place = Arc::<Place>::default();
            let mut waiting = lock(&account.0.waiting);
            if waiting.is_empty() {
                line.queues.push(account.clone());
            }
            waiting.push_back(Arc::clone(&place));
            if is_urgent {
                line.urgent.push_back((now + PATIENCE, Arc::downgrade(&place)));
            }
            Some(place)
        };
        if line.left == 0 && !line.is_paced {
            line.is_paced = true;
            drop(line);
            tokio::spawn(self.clone().pace());
        }
        place
    }

    /// Somebody whose turns others in line wait for has had one of this length.
    fn turned(&self, took: Duration) {
        /// Of the last turn in the average.
        const WEIGHT: u64 = 8;
        let average = self.0.turn.load(Ordering::Relaxed);
        let took = took.min(MOST).as_nanos() as u64;
        // That of another thread may be lost: it is an estimate.
        self.0.turn.store(average - average / WEIGHT + took / WEIGHT, Ordering::Relaxed);
    }

    /// How many may be called for each core.
    fn most(&self) -> usize {
        let turn = self.0.turn.load(Ordering::Relaxed).max(1);
        (BETWEEN_LOOKS.as_nanos() as u64 / turn).clamp(1, AT_ONCE as u64) as usize
    }

    /// Calls who waits, a few after each look for news, until nobody does.
    async fn pace(self) {
        loop {
            // The runtime wakes who yields after it has looked for news.
            yield_now().await;
            let most = self.most();
            let called = lock(&self.0.line).call(most, Instant::now());
            if called.is_empty() {
                return;
            }
            called.iter().for_each(|place| place.call());
        }
    }
}

impl Presence {
    fn mark(&self, now: u64) {
        // Seldom, because all threads look at it.
        if self.0.load(Ordering::Relaxed) < now {
            self.0.store(now, Ordering::Relaxed);
        }
    }

    fn is_over(&self, now: u64) -> bool {
        let last = self.0.load(Ordering::Relaxed);
        last == 0 || now > last + CALM.as_millis() as u64
    }
}

impl Line {
    /// Those whose turn it is, as many for each core, and some of those who have waited long enough.
    fn call(&mut self, most: usize, now: Instant) -> Vec<Arc<Place>> {
        let at_once = most * self.cores;
        let mut called = Vec::with_capacity(at_once);
        while called.len() < at_once
            && let Some(account) = self.queues.pop()
        {
            let mut waiting = lock(&account.0.waiting);
            // Those who have left while they waited are held by nobody else.
            while waiting.front().is_some_and(|place| Arc::strong_count(place) == 1) {
                waiting.pop_front();
            }
            called.extend(waiting.pop_front());
            if !waiting.is_empty() {
                drop(waiting);
                self.queues.push(account);
            }
        }
        self.left = at_once - called.len();
        let at_most = called.len() + URGENT_AT_ONCE * at_once;
        while called.len() < at_most
            && let Some((_, place)) = self.urgent.pop_front_if(|(until, _)| *until <= now)
        {
            called.extend(place.upgrade());
        }
        self.is_paced = !called.is_empty();
        called
    }
}

impl Queues {
    fn is_empty(&self) -> bool {
        self.known.is_empty() && self.unknown.is_empty()
    }

    fn push(&mut self, account: Account) {
        if account.is_known() { &mut self.known } else { &mut self.unknown }.push_back(account);
    }

    /// Of both kinds in turn, while there are any of both.
    fn pop(&mut self) -> Option<Account> {
        self.was_known = self.unknown.is_empty() || !self.was_known && !self.known.is_empty();
        if self.was_known { &mut self.known } else { &mut self.unknown }.pop_front()
    }
}

impl Place {
    fn call(&self) {
        self.is_called.store(true, Ordering::Release);
        self.waker.wake();
    }
}

impl Account {
    /// That of somebody who is known, alone.
    pub(crate) fn known() -> Self {
        Self::new(true)
    }

    /// That of somebody of whom nothing is known yet, alone.
    pub(crate) fn unknown() -> Self {
        Self::new(false)
    }

    /// Something good is known from now on.
    fn prove(&self) {
        self.0.is_known.store(true, Ordering::Relaxed);
    }

    fn new(is_known: bool) -> Self {
        let debt = Mutex::new(Debt { debt: Duration::ZERO, since: Instant::now() });
        Self(Arc::new(Ledger { is_known: AtomicBool::new(is_known), debt, waiting: Mutex::default() }))
    }

    fn is_known(&self) -> bool {
        self.0.is_known.load(Ordering::Relaxed)
    }

    fn may_go(&self, now: Instant) -> bool {
        self.is_known() && !lock(&self.0.debt).is_too_much(now)
    }

    fn took(&self, began: Instant, now: Instant) {
        lock(&self.0.debt).took(began, now);
    }
}

impl From<Account> for Payer {
    fn from(account: Account) -> Self {
        Self(Arc::new(ArcSwap::new(account.0)))
    }
}

impl Payer {
    /// Turns go on this account from now on.
    pub(crate) fn becomes(&self, account: Account) {
        self.0.store(account.0);
    }

    fn account(&self) -> Account {
        Account(self.0.load_full())
    }
}

impl Debt {
    fn is_too_much(&mut self, now: Instant) -> bool {
        // Another thread may have come later and looked sooner.
        self.debt = self.debt.saturating_sub(now.saturating_duration_since(self.since) / SHARE);
        self.since = self.since.max(now);
        self.debt > LIMIT
    }

    fn took(&mut self, began: Instant, now: Instant) {
        let more = self.debt + now.saturating_duration_since(began);
        self.debt = self.debt.max(more.min(MOST));
        self.since = self.since.max(now);
    }
}

impl Networks {
    fn of(&mut self, network: IpAddr) -> Account {
        if let Some(account) = self.known(network) {
            return account;
        }
        if let Some(account) = self.present.get(&network).and_then(Weak::upgrade) {
            return Account(account);
        }
        let account = Account::unknown();
        self.attend(network, &account);
        account
    }

    fn attend(&mut self, network: IpAddr, account: &Account) {
        if self.present.len() >= self.bound.max(PRESENT) {
            self.present.retain(|_, ledger| ledger.strong_count() > 0);
            self.bound = 2 * self.present.len();
            self.present.shrink_to(self.bound.max(PRESENT));
        }
        self.present.insert(network, Arc::downgrade(&account.0));
    }

    /// How many are known.
    fn count(&self) -> i64 {
        (self.recent.len() + self.earlier.len()) as i64
    }

    fn doubt(&mut self, network: IpAddr) {
        if let Some(account) = self.recent.remove(&network).or_else(|| self.earlier.remove(&network)) {
            account.0.is_known.store(false, Ordering::Relaxed);
            self.attend(network, &account);
        }
    }

    fn known(&mut self, network: IpAddr) -> Option<Account> {
        if let Some(account) = self.recent.get(&network) {
            return Some(account.clone());
        }
        let account = self.earlier.remove(&network)?;
        self.keep(network, account.clone());
        Some(account)
    }

    fn prove(&mut self, network: IpAddr) {
        if self.known(network).is_some() {
            return;
        }
        let present = self.present.remove(&network).and_then(|ledger| ledger.upgrade());
        let account = present.map_or_else(|| Account::new(true), Account);
        account.prove();
        self.keep(network, account);
    }

    fn keep(&mut self, network: IpAddr, account: Account) {
        if self.recent.len() >= KNOWN {
            self.earlier = std::mem::take(&mut self.recent);
        }
        self.recent.insert(network, account);
    }
}

/// Ends the turn of a [`Fair`] task unless it stood in line for it. What follows takes many times as long as other turns, and who takes
/// little otherwise may be one of a crowd of whom each wants it once.
pub(crate) async fn stand_in_line() {
    poll_fn(|context| {
        if TURN.get() == Turn::InLine {
            return Poll::Ready(());
        }
        TURN.set(Turn::Ends);
        context.waker().wake_by_ref();
        Poll::Pending
    })
    .await;
}

/// A task whose turns go on an account.
///
/// It must not take what others wait for, who may have other accounts, and then wait itself: in line it would keep it for as long as
/// all of those before it do. Handshakes did so once, by a permit to calculate.
pub(crate) struct Fair<F> {
    task: F,
    fairness: Fairness,
    payer: Payer,
    place: Option<Arc<Place>>,
    is_urgent: bool,
    /// The next turn is one in line, whatever its account has taken.
    stands: bool,
    /// This turn is one of those that others in line wait for.
    is_awaited: bool,
}

impl<F: Future + Unpin> Fair<F> {
    pub(crate) fn new(task: F, fairness: Fairness, payer: impl Into<Payer>) -> Self {
        Self { task, fairness, payer: payer.into(), place: None, is_urgent: false, stands: false, is_awaited: false }
    }

    /// Is called before its turn after [`PATIENCE`]: what comes for it meanwhile piles up, and nothing bounds that.
    pub(crate) fn urgent(self) -> Self {
        Self { is_urgent: true, ..self }
    }

    /// Whether it has to wait in line.
    fn waits(&mut self, account: &Account, now: Instant, context: &Context<'_>) -> bool {
        if self.place.is_none() {
            if !std::mem::take(&mut self.stands) && account.may_go(now) {
                self.fairness.saw_light(now);
                return false;
            }
            self.is_awaited = true;
            self.place = self.fairness.enter(account, self.is_urgent, now);
        }
        let Some(place) = &self.place else { return false };
        place.waker.register(context.waker());
        let is_called = place.is_called.load(Ordering::Acquire);
        if is_called {
            self.place = None;
        }
        !is_called
    }
}

impl<F: Future + Unpin> Future for Fair<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<F::Output> {
        let began = Instant::now();
        let account = self.payer.account();
        if self.waits(&account, began, context) {
            return Poll::Pending;
        }
        TURN.set(if self.is_awaited { Turn::InLine } else { Turn::AtOnce });
        let polled = Pin::new(&mut self.task).poll(context);
        let ended = Instant::now();
        self.stands = TURN.replace(Turn::InLine) == Turn::Ends;
        account.took(began, ended);
        if std::mem::take(&mut self.is_awaited) {
            self.fairness.turned(ended.saturating_duration_since(began));
        }
        polled
    }
}

#[cfg(test)]
mod tests {
    use std::future::pending;
    use std::sync::atomic::AtomicUsize;

    use super::*;

    /// Of debt, which no pause of the machine makes up for.
    const AN_HOUR: Duration = Duration::from_secs(3600);

    fn at(address: &str) -> IpAddr {
        address.parse().unwrap()
    }

    fn nobody() -> Fairness {
        Fairness::new(IntGauge::new("known", "For this test.").unwrap())
    }

    fn indebted() -> Account {
        let account = Account::known();
        lock(&account.0.debt).debt = AN_HOUR;
        account
    }

    #[test]
    fn a_debt_is_forgiven_with_time() {
        let start = Instant::now();
        let at = |time: Duration| start + time;
        let mut debt = Debt { debt: Duration::ZERO, since: start };
        assert!(!debt.is_too_much(start));
        debt.took(start, at(LIMIT));
        assert!(!debt.is_too_much(at(LIMIT)));
        debt.took(at(LIMIT), at(3 * LIMIT));
        let now = at(3 * LIMIT);
        assert!(debt.is_too_much(now));
        assert!(debt.is_too_much(now + 2 * LIMIT * (SHARE - 1)));
        assert!(!debt.is_too_much(now + 2 * LIMIT * SHARE));
        // No more than so much is held against anybody.
        debt.took(start, at(Duration::from_secs(1)));
        assert!(debt.is_too_much(at(Duration::from_secs(1))));
        assert!(!debt.is_too_much(at(Duration::from_secs(1)) + (MOST - LIMIT) * SHARE));
    }

    #[test]
    fn neighbours_have_one_account() {
        let fairness = nobody();
        let accounts =
            ["192.0.2.1", "192.0.2.200", "::ffff:192.0.2.3", "198.51.100.1", "2001:db8:1::1", "2001:db8:1:2::1"];
        let accounts = accounts.map(|address| fairness.of(at(address)));
        let is_one = |one: usize, other: usize| Arc::ptr_eq(&accounts[one].0, &accounts[other].0);
        assert!(is_one(0, 1) && is_one(0, 2) && is_one(4, 5));
        assert!(!is_one(0, 3) && !is_one(0, 4));
    }

    #[test]
    fn who_was_served_is_known_however_many_come_after() {
        let fairness = nobody();
        let known = at("192.0.2.1");
        let present = fairness.of(known);
        assert!(!present.may_go(Instant::now()));
        fairness.prove(known);
        assert!(present.may_go(Instant::now()));
        drop(present);
        for number in 0..200_000_u32 {
            fairness.of(Ipv4Addr::from_bits(number << 8).into());
        }
        assert!(fairness.of(known).may_go(Instant::now()));
        let networks = lock(&fairness.0.networks);
        assert!(networks.present.len() <= PRESENT, "who has left is forgotten: {}", networks.present.len());
    }

    #[test]
    fn who_was_served_long_ago_is_forgotten() {
        let fairness = nobody();
        fairness.prove(at("255.0.0.1"));
        for number in 0..3 * KNOWN as u32 {
            fairness.prove(Ipv4Addr::from_bits(number << 8).into());
            fairness.prove(at("254.0.0.1"));
        }
        assert!(!fairness.of(at("255.0.0.1")).may_go(Instant::now()));
        assert!(fairness.of(at("254.0.0.1")).may_go(Instant::now()), "who comes all the time is not");
        let networks = lock(&fairness.0.networks);
        assert!(networks.recent.len() + networks.earlier.len() <= 2 * KNOWN);
    }

    #[test]
    fn who_is_doubted_is_as_unknown_as_a_newcomer_until_the_next_answer() {
        let fairness = nobody();
        let (address, now) = (at("192.0.2.1"), Instant::now());
        fairness.prove(address);
        let account = fairness.of(address);
        fairness.doubt(at("192.0.2.2"));
        assert!(!account.may_go(now) && fairness.0.known_networks.get() == 0);
        assert!(Arc::ptr_eq(&account.0, &fairness.of(address).0), "one account while anybody is here");
        fairness.doubt(address);
        fairness.prove(address);
        assert!(account.may_go(now) && fairness.0.known_networks.get() == 1);
        for number in 0..100_000_u32 {
            fairness.prove(Ipv4Addr::from_bits(number << 8).into());
            fairness.doubt(Ipv4Addr::from_bits(number << 8).into());
        }
        assert!(lock(&fairness.0.networks).present.len() <= PRESENT);
    }

    #[test]
    fn fewer_are_called_whose_turns_are_long() {
        let fairness = nobody();
        assert_eq!(fairness.most(), AT_ONCE);
        for _ in 0..100 {
            fairness.turned(3 * BETWEEN_LOOKS);
        }
        assert_eq!(fairness.most(), 1);
        for _ in 0..100 {
            fairness.turned(BETWEEN_LOOKS * 2 / 5);
        }
        assert_eq!(fairness.most(), 2);
        for _ in 0..100 {
            fairness.turned(Duration::from_micros(10));
        }
        assert_eq!(fairness.most(), AT_ONCE);
    }

    #[test]
    fn nobody_waits_while_there_is_nobody_else() {
        let (fairness, account, now) = (closed(), indebted(), Instant::now());
        assert!(fairness.enter(&account, false, now).is_none());
        fairness.saw_light(now);
        assert!(fairness.enter(&account, false, now + CALM).is_some());
        assert!(fairness.enter(&account, false, now + 2 * CALM).is_none());
    }

    #[test]
    fn newcomers_wait_for_busy_tenants_too() {
        let (fairness, busy, newcomer) = (closed(), indebted(), Account::unknown());
        let now = Instant::now();
        assert!(fairness.enter(&newcomer, false, now).is_none());
        assert!(fairness.enter(&busy, false, now).is_none(), "nobody takes little");
        assert!(fairness.enter(&newcomer, false, now + CALM).is_some());
        assert!(fairness.enter(&busy, false, now + CALM).is_none());
        assert!(fairness.enter(&newcomer, false, now + 3 * CALM).is_none());
    }

    #[tokio::test]
    async fn a_task_pays_with_the_account_that_is_its_own_by_then() {
        let fairness = closed();
        let (first, own) = (Account::unknown(), Account::known());
        let payer = Payer::from(first.clone());
        let mut task = Fair::new(pending::<()>(), fairness.clone(), payer.clone());
        fairness.saw_light(Instant::now() + AN_HOUR);
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(Pin::new(&mut task).poll(&mut context).is_pending());
        assert_eq!(lock(&first.0.waiting).len(), 1);
        payer.becomes(own.clone());
        lock(&fairness.0.line).call(1, Instant::now()).iter().for_each(|place| place.call());
        assert!(Pin::new(&mut task).poll(&mut context).is_pending());
        assert!(task.place.is_none(), "it has been called where it waited");
        assert!(lock(&own.0.debt).debt > Duration::ZERO && lock(&first.0.debt).debt.is_zero());
    }

    #[test]
    fn what_takes_long_is_done_in_line_whoever_wants_it() {
        let (fairness, account) = (closed(), Account::known());
        let mut done = 0;
        let mut task = Fair::new(
            Box::pin(async {
                done += 1;
                stand_in_line().await;
                done += 1;
                yield_now().await;
            }),
            fairness.clone(),
            account.clone(),
        );
        let mut context = Context::from_waker(std::task::Waker::noop());
        fairness.saw_light(Instant::now() + AN_HOUR);
        let mut turn = || assert!(Pin::new(&mut task).poll(&mut context).is_pending());
        turn();
        turn();
        assert_eq!(lock(&account.0.waiting).len(), 1);
        lock(&fairness.0.line).call(1, Instant::now()).iter().for_each(|place| place.call());
        turn();
        assert!(Pin::new(&mut task).poll(&mut context).is_ready(), "it goes at once again");
        drop(task);
        assert_eq!(done, 2);
    }

    /// Nobody may go at once, and nobody calls but the test.
    fn closed() -> Fairness {
        let fairness = nobody();
        let mut line = lock(&fairness.0.line);
        (line.left, line.is_paced) = (0, true);
        drop(line);
        fairness
    }

    #[test]
    fn accounts_take_turns_however_many_wait() {
        let fairness = closed();
        let (many, one) = (indebted(), indebted());
        let now = Instant::now();
        fairness.saw_light(now);
        let mut crowd: Vec<_> = (0..1000).map(|_| fairness.enter(&many, false, now).unwrap()).collect();
        let last = fairness.enter(&one, false, now).unwrap();
        lock(&fairness.0.line).call(AT_ONCE, now).iter().for_each(|place| place.call());
        assert!(last.is_called.load(Ordering::Relaxed), "a thousand of another account were before it");
        // Those who have left take nobody's turn.
        crowd.drain(..crowd.len() - 1);
        lock(&fairness.0.line).call(AT_ONCE, now).iter().for_each(|place| place.call());
        assert!(crowd[0].is_called.load(Ordering::Relaxed));
        let line = lock(&fairness.0.line);
        assert!(line.queues.is_empty() && line.left == line.cores * AT_ONCE - 1);
    }

    #[test]
    fn crowds_of_newcomers_keep_no_busy_tenant_waiting() {
        let fairness = closed();
        let now = Instant::now();
        fairness.saw_light(now);
        let crowd: Vec<_> = (0..1000).map(|_| fairness.enter(&Account::unknown(), false, now).unwrap()).collect();
        let tenants: Vec<_> = (0..5).map(|_| fairness.enter(&indebted(), false, now).unwrap()).collect();
        let called =
            |places: &[Arc<Place>]| places.iter().filter(|place| place.is_called.load(Ordering::Relaxed)).count();
        let call = || {
            let mut line = lock(&fairness.0.line);
            line.cores = 1;
            line.call(4, now).iter().for_each(|place| place.call());
        };
        call();
        assert_eq!((called(&crowd), called(&tenants)), (2, 2));
        call();
        call();
        assert_eq!((called(&crowd), called(&tenants)), (7, 5), "nobody's turn is left unused");
    }

    #[test]
    fn who_is_urgent_is_called_after_so_long_some_at_a_time() {
        let fairness = closed();
        lock(&fairness.0.line).cores = 1;
        let (many, one) = (indebted(), indebted());
        let now = Instant::now();
        fairness.saw_light(now);
        let _crowd: Vec<_> = (0..1000).map(|_| fairness.enter(&one, false, now).unwrap()).collect();
        let urgent: Vec<_> = (0..100).map(|_| fairness.enter(&many, true, now).unwrap()).collect();
        let later: Vec<_> = (0..100).map(|_| fairness.enter(&many, true, now + PATIENCE / 2).unwrap()).collect();
        let call = |now| lock(&fairness.0.line).call(1, now).iter().for_each(|place| place.call());
        let called =
            |places: &[Arc<Place>]| places.iter().filter(|place| place.is_called.load(Ordering::Relaxed)).count();
        call(now);
        assert!(called(&urgent) <= 1, "they have waited for nothing yet");
        for calls in 1..=100 / URGENT_AT_ONCE {
            call(now + PATIENCE);
            assert!((calls * URGENT_AT_ONCE..=calls * (URGENT_AT_ONCE + 1) + 1).contains(&called(&urgent)));
        }
        assert_eq!(called(&urgent), 100);
        assert_eq!(called(&later), 0, "they have not waited for so long");
        (0..100 / URGENT_AT_ONCE).for_each(|_| call(now + 2 * PATIENCE));
        assert_eq!(called(&later), 100);
        assert!(lock(&fairness.0.line).urgent.is_empty());
    }

    #[test]
    fn there_is_one_who_calls() {
        let fairness = closed();
        let now = Instant::now();
        fairness.saw_light(now);
        let place = fairness.enter(&indebted(), true, now).unwrap();
        let mut line = lock(&fairness.0.line);
        assert_eq!(line.call(1, now).len(), 1);
        assert!(line.is_paced);
        // Called before, and has not had its turn yet.
        let called = line.call(1, now + PATIENCE);
        assert_eq!((called.is_empty(), line.is_paced), (false, true), "who calls goes on while there is anybody");
        drop((called, place));
        assert!(line.call(1, now + PATIENCE).is_empty() && !line.is_paced);
    }

    /// Many tasks that are ready whenever they are asked; how many turns they have for each turn of one that is not in debt.
    async fn turns_of_the_busy(account: fn() -> Account) -> usize {
        let fairness = nobody();
        let busy = 10 * AT_ONCE * lock(&fairness.0.line).cores;
        let turns = Arc::new(AtomicUsize::new(0));
        let tasks: Vec<_> = (0..busy)
            .map(|_| {
                let counted = Arc::clone(&turns);
                let task = poll_fn(move |context| {
                    counted.fetch_add(1, Ordering::Relaxed);
                    context.waker().wake_by_ref();
                    Poll::<()>::Pending
                });
                tokio::spawn(Fair::new(task, fairness.clone(), account()))
            })
            .collect();
        const TURNS: usize = 20;
        let light = Box::pin(async {
            for _ in 0..TURNS {
                yield_now().await;
            }
        });
        fairness.saw_light(Instant::now() + AN_HOUR);
        Fair::new(light, fairness.clone(), Account::known()).await;
        let turns = turns.load(Ordering::Relaxed) / TURNS;
        tasks.iter().for_each(tokio::task::JoinHandle::abort);
        assert!(turns * TURNS >= busy, "the busy ones have their turns, too");
        turns / (AT_ONCE * lock(&fairness.0.line).cores)
    }

    #[tokio::test]
    async fn who_takes_little_waits_for_few() {
        assert!(turns_of_the_busy(Account::known).await >= 5, "without a line all are before it");
        assert!(turns_of_the_busy(indebted).await <= 2, "who is in debt waits");
        assert!(turns_of_the_busy(Account::unknown).await <= 2, "who is not known waits");
    }

    #[tokio::test(flavor = "multi_thread", worker_threads = 2)]
    async fn everybody_is_called() {
        const TASKS: usize = 1000;
        let fairness = nobody();
        let accounts: Vec<_> = (0..10).map(|_| indebted()).collect();
        fairness.saw_light(Instant::now() + AN_HOUR);
        let tasks: Vec<_> = (0..TASKS)
            .map(|number| {
                let task = Box::pin(async move {
                    for _ in 0..100 {
                        yield_now().await;
                    }
                    number
                });
                tokio::spawn(Fair::new(task, fairness.clone(), accounts[number % 10].clone()))
            })
            .collect();
        for (number, task) in tasks.into_iter().enumerate() {
            // Those who leave while they wait take nobody's place.
            if number % 3 == 0 {
                task.abort();
                continue;
            }
            assert_eq!(task.await.unwrap(), number);
        }
    }

    #[tokio::test]
    async fn what_happens_meanwhile_is_not_missed() {
        let fairness = closed();
        let (sender, receiver) = tokio::sync::oneshot::channel();
        let mut receiver = Fair::new(receiver, fairness.clone(), indebted());
        fairness.saw_light(Instant::now() + AN_HOUR);
        let mut context = Context::from_waker(std::task::Waker::noop());
        assert!(Pin::new(&mut receiver).poll(&mut context).is_pending());
        sender.send(7).unwrap();
        assert!(Pin::new(&mut receiver).poll(&mut context).is_pending());
        tokio::spawn(fairness.clone().pace());
        assert_eq!(receiver.await, Ok(7));
    }
}
