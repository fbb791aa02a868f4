//! Taking in what registries notify: parse, keep, and only then say 202.

pub mod auth;
pub mod envelope;
pub mod handler;
pub mod intake;

use actix_web::http::header;
use actix_web::{HttpResponse, web};

/// Routes of the public port: `POST /events`, and nothing else.
pub fn routes(routes: &mut web::ServiceConfig) {
    let refused = || async {
        HttpResponse::MethodNotAllowed()
            .insert_header((header::ALLOW, "POST"))
            .insert_header((header::CACHE_CONTROL, "no-store"))
            .finish()
    };
    let events = web::resource("/events")
        .route(web::post().to(handler::events))
        .default_service(web::to(refused));
    let unknown = || async {
        HttpResponse::NotFound()
            .insert_header((header::CACHE_CONTROL, "no-store"))
            .finish()
    };
    routes.service(events).default_service(web::to(unknown));
}
