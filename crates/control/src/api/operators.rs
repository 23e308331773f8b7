//! `/v1/operators`: who may log in at the dashboard.

use axum::Json;
use axum::extract::State;
use axum::http::StatusCode;

use super::Api;
use super::handlers::Answer;
use super::problem::Refusal;
use super::request::{Body, OfUser, parse_username};
use crate::contract::{OperatorView, OperatorsView, PutOperator};
use crate::model::Actor;
use crate::password::Password;

pub(super) async fn list(State(api): State<Api>) -> Answer<OperatorsView> {
    let operators = api.call(|control| control.operators()).await?;
    Ok(Json(OperatorsView { operators: operators.iter().map(OperatorView::new).collect() }))
}

/// Adds an operator, or gives the one there is another password.
pub(super) async fn put(
    State(api): State<Api>,
    Body(wish): Body<PutOperator>,
) -> Result<(StatusCode, Json<OperatorView>), Refusal> {
    let name = parse_username(&wish.name)?;
    let password =
        Password::parse(&wish.password).map_err(|error| Refusal::BadRequest(error.to_string()))?;
    let operator =
        api.call(move |control| control.put_operator(Actor::Operator, &name, &password)).await?;
    Ok((StatusCode::CREATED, Json(OperatorView::new(&operator))))
}

pub(super) async fn remove(
    State(api): State<Api>,
    OfUser(name): OfUser,
) -> Result<StatusCode, Refusal> {
    api.call(move |control| control.delete_operator(Actor::Operator, &name)).await?;
    Ok(StatusCode::NO_CONTENT)
}
