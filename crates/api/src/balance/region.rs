//! The parts of the world by which visitors are led.

use std::sync::Arc;

use axum::extract::{Path, State};
use registry::REGIONS;
use serde_json::{Value, json};

use super::{Parameters, check_path, parameter};
use crate::envelope::{Answer, success};
use crate::error::ApiError;
use crate::state::Shared;

pub(crate) async fn list(State(shared): State<Arc<Shared>>, Path(path): Path<Parameters>) -> Answer {
    check_path(&shared.state.registry.snapshot(), &path)?;
    Ok(success(json!({ "regions": REGIONS.map(shown) })))
}

pub(crate) async fn one(State(shared): State<Arc<Shared>>, Path(path): Path<Parameters>) -> Answer {
    let snapshot = shared.state.registry.snapshot();
    let code = parameter(&snapshot, &path, "region")?;
    let region = REGIONS.into_iter().find(|(region, _)| *region == code);
    let region = region.ok_or_else(|| ApiError::no_object(&format!("/load_balancers/regions/{code}")))?;
    Ok(success(json!({ "regions": [shown(region)] })))
}

fn shown((code, name): (&str, &str)) -> Value {
    let countries: Vec<_> = geo::countries(code).map(country).collect();
    json!({ "region_code": code, "region_name": name, "countries": countries })
}

/// With those of its states that lie there, if not all do.
fn country((code, states): (&str, Vec<&str>)) -> Value {
    if states.is_empty() {
        return json!({ "country_code_a2": code });
    }
    let states: Vec<_> = states.into_iter().map(|state| json!({ "subdivision_code_a2": state })).collect();
    json!({ "country_code_a2": code, "country_subdivisions": states })
}
