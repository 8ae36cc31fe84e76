//! What a monitor would find of a pool, before it is the pool's.

use std::collections::{BTreeMap, VecDeque};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use axum::body::Body;
use axum::extract::{Path, State};
use registry::{MonitorTerms, Pool, PoolId, PoolReport};
use serde_json::json;
use tokio::sync::Semaphore;

use super::health::Found;
use super::{Members, Parameters, parameter, pool, terms};
use crate::body;
use crate::envelope::{Answer, success};
use crate::error::ApiError;
use crate::state::Shared;

/// Previews that are kept; older ones go. Whoever asks for one looks at it soon.
const KEPT: usize = 100;

/// Previews at once. They ask from the same places as monitors do, which are not to wait for them.
const AT_ONCE: usize = 4;
/// When there are as many, some have come to an end after this time.
const SOON: Duration = Duration::from_secs(5);

/// The latest previews that this node was asked for, in memory.
pub(crate) struct Previews {
    kept: Mutex<VecDeque<Preview>>,
    places: Arc<Semaphore>,
}

impl Default for Previews {
    fn default() -> Self {
        Self { kept: Mutex::default(), places: Arc::new(Semaphore::new(AT_ONCE)) }
    }
}

struct Preview {
    id: String,
    pool: Pool,
    /// `None` as long as members are asked.
    found: Option<PoolReport>,
}

impl Previews {
    fn begin(&self, pool: Pool) -> String {
        let id = format!("{:032x}", rand::random::<u128>());
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if kept.len() == KEPT {
            kept.pop_front();
        }
        kept.push_back(Preview { id: id.clone(), pool, found: None });
        id
    }

    fn end(&self, id: &str, found: PoolReport) {
        let mut kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(preview) = kept.iter_mut().find(|preview| preview.id == id) {
            preview.found = Some(found);
        }
    }

    fn get(&self, id: &str) -> Option<(Pool, Option<PoolReport>)> {
        let kept = self.kept.lock().unwrap_or_else(PoisonError::into_inner);
        kept.iter().find(|preview| preview.id == id).map(|preview| (preview.pool.clone(), preview.found.clone()))
    }
}

/// Begins to ask a pool's members as this monitor says.
pub(crate) async fn begin(State(shared): State<Arc<Shared>>, Path(path): Path<Parameters>, body: Body) -> Answer {
    let pool = pool::find(&shared.state.registry.snapshot(), &path)?.clone();
    let body: Members = body::json(body, body::SMALL).await?;
    let monitor = terms::<MonitorTerms>(&body, None).and_then(MonitorTerms::checked);
    let monitor = monitor.map_err(ApiError::not_valid)?;
    let (pool_id, name) = (pool.id, pool.terms.name.clone());
    let place = Arc::clone(&shared.previews.places).try_acquire_owned().map_err(|_| ApiError::too_many(SOON))?;
    let id = shared.previews.begin(pool.clone());
    let shown = id.clone();
    let asking = shared.state.preview.as_ref().map(|preview| preview(pool, monitor));
    let shared = shared.clone();
    // It takes no longer than the monitor's interval, and nobody waits for it.
    tokio::spawn(async move {
        let found = match asking {
            Some(asking) => asking.await,
            None => PoolReport { pool: pool_id, members: Vec::new() },
        };
        shared.previews.end(&id, found);
        drop(place);
    });
    Ok(success(json!({ "preview_id": shown, "pools": { (pool_id.to_string()): name } })))
}

/// What was found; empty as long as members are asked.
pub(crate) async fn found(State(shared): State<Arc<Shared>>, Path(path): Path<Parameters>) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    let id = parameter(&snapshot, &path, "preview")?;
    let none = || ApiError::no_object(&format!("/load_balancers/preview/{id}"));
    let (pool, found) = shared.previews.get(id).ok_or_else(none)?;
    let health = found.map(|found| snapshot.health_if(&pool, found));
    let shown: BTreeMap<PoolId, _> = health.iter().map(|health| (pool.id, Found::new(&pool, health))).collect();
    Ok(success(shown))
}
