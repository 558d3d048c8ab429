//! `/notify/oracle-fallback`: core tells that a model in the cloud stands in for one of its own.

use serde_json::json;

use super::{
    Gaia,
    body::Fields,
    notification,
    reply::{Answer, ok, stamp},
    routes::Asked,
};

/// Answers at once, whoever listens.
pub fn notify(gaia: &Gaia, asked: &Asked) -> Answer {
    let mut fields = Fields::required(&asked.body)?;
    let model = fields.required_text("fallback_model");
    let role = fields.required_text("original_role");
    let reason = fields.text("reason").unwrap_or_default();
    let at = fields.text("timestamp").unwrap_or_else(|| stamp(gaia.clock.now()));
    fields.done()?;
    gaia.hub.publish(notification::oracle_fallback(&model, &role, &reason, &at));
    ok(&json!({"success": true, "message": "Notification received"}))
}
