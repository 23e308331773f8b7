//! Operators log in by name and password. Guessing is slow and gets slower.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;

use askama::Template;
use axum::extract::{Request, State};
use axum::http::StatusCode;
use axum::http::header::SET_COOKIE;
use axum::response::{AppendHeaders, IntoResponse, Redirect, Response};

use crate::control::OperatorLogin;
use crate::dashboard::Dashboard;
use crate::dashboard::failure::Failure;
use crate::dashboard::page::{Frame, render};
use crate::dashboard::session::{
    CookieFor, Fields, LoggedIn, Sent, clear_cookie, is_cross_site, set_cookie,
};
use crate::model::OperatorName;
use crate::server::Peer;

#[derive(Template)]
#[template(path = "login.html")]
struct LoginPage {
    frame: Frame,
    wrong: bool,
}

pub(super) async fn show() -> Response {
    render(&LoginPage { frame: Frame::outside("Operators"), wrong: false })
}

/// There is no session yet whose token the form could have; the browser says where it comes from. Who is
/// logged in by another site's form would only be someone whose password that site knows.
pub(super) async fn enter(
    State(dashboard): State<Dashboard>,
    request: Request,
) -> Result<Response, Failure> {
    if is_cross_site(request.headers()) {
        return Err(Failure::Forged);
    }
    let from =
        request.extensions().get::<Peer>().map_or(IpAddr::V4(Ipv4Addr::UNSPECIFIED), |peer| peer.0);
    let fields = Fields::read(request, &dashboard).await?;
    let Ok(name) = OperatorName::parse(fields.get("name")) else { return Ok(wrong()) };
    let password = fields.get("password").to_owned();
    let permit = Arc::clone(&dashboard.logins).try_acquire_owned().map_err(|_| Failure::Busy)?;
    let login = dashboard.call(move |control| {
        let _permit = permit;
        control.log_in_operator(from, &name, &password)
    });
    match login.await? {
        OperatorLogin::Session(session) => {
            let cookie = set_cookie(CookieFor::Operator, &session, dashboard.is_secure());
            Ok((AppendHeaders([(SET_COOKIE, cookie)]), Redirect::to("/operator")).into_response())
        }
        OperatorLogin::Wrong => {
            tracing::warn!(operator.name = %name, %from, "wrong password of an operator");
            Ok(wrong())
        }
        OperatorLogin::TooMany { wait_seconds } => Err(Failure::Guessing { wait_seconds }),
    }
}

fn wrong() -> Response {
    let page = LoginPage { frame: Frame::outside("Operators"), wrong: true };
    (StatusCode::FORBIDDEN, render(&page)).into_response()
}

/// Ends the session.
pub(super) async fn leave(
    State(dashboard): State<Dashboard>,
    Sent { who, .. }: Sent<LoggedIn>,
) -> Result<Response, Failure> {
    dashboard.call(move |control| control.end_session(&who.id)).await?;
    let cookie = clear_cookie(CookieFor::Operator, dashboard.is_secure());
    Ok((AppendHeaders([(SET_COOKIE, cookie)]), Redirect::to("/operator/login")).into_response())
}
