//! The authority on the admin port.

use std::sync::Arc;

use axum::extract::State;
use axum::http::StatusCode;
use axum::response::{IntoResponse, Response};
use axum::routing::{get, post};
use axum::{Json, Router};

use super::rotation::{Command, CommandError};
use crate::admin::Admin;

/// The pages of the authority.
pub fn routes() -> Router<Arc<Admin>> {
    let told = |command| post(move |State(admin): State<Arc<Admin>>| tell(admin, command));
    Router::new()
        .route("/debug/ca", get(|State(admin): State<Arc<Admin>>| status(admin)))
        .route("/debug/ca/rotate", told(Command::Rotate))
        .route("/debug/ca/pause", told(Command::Pause))
        .route("/debug/ca/resume", told(Command::Resume))
        .route("/debug/ca/undo", told(Command::Undo))
}

fn no_authority() -> Response {
    (StatusCode::NOT_FOUND, "this server has no certificate authority: start it with --state\n")
        .into_response()
}

async fn status(admin: Arc<Admin>) -> Response {
    let Some(identity) = admin.identity.clone() else { return no_authority() };
    let looked = tokio::task::spawn_blocking(move || identity.status(&admin.registry)).await;
    match looked {
        Ok(status) => Json(status).into_response(),
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}

/// Has something done, and answers with what that led to.
async fn tell(admin: Arc<Admin>, command: Command) -> Response {
    let Some(identity) = admin.identity.clone() else { return no_authority() };
    // It makes keys and writes files.
    let told = tokio::task::spawn_blocking(move || {
        identity.command(command).map(|()| identity.status(&admin.registry))
    });
    match told.await {
        Ok(Ok(status)) => Json(status).into_response(),
        Ok(Err(error)) => {
            let code = match error {
                CommandError::Plugged
                | CommandError::Kept(navarch_identity::authority::KeptError::Rotation(_)) => {
                    StatusCode::CONFLICT
                }
                CommandError::Kept(_) => StatusCode::INTERNAL_SERVER_ERROR,
            };
            (code, format!("{error}\n")).into_response()
        }
        Err(_) => StatusCode::INTERNAL_SERVER_ERROR.into_response(),
    }
}
