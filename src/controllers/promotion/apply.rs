//! Carrying out one action.

use super::{PromotionReconciler, observed::Action};
use crate::{
    api::{handoff::Handoff, promotion::Promotion, workload::Workload},
    registry::{ApiError, ObjectName, Reason},
    runtime::{
        objects::Objects,
        reconciler::{PassError, name_of},
    },
};

impl<O: Objects> PromotionReconciler<O> {
    pub(super) async fn carry_out(&self, promotion: &Promotion, action: &Action) -> Result<(), PassError> {
        match action {
            Action::SetWorkload { version, change } => {
                let name = ObjectName {
                    namespace: promotion.metadata.namespace.clone(),
                    name: promotion.spec.workload.clone(),
                };
                let patch = change.patch(version.as_deref());
                self.objects.merge::<Workload>(&name, patch).await.map_err(cannot("change the workload"))?;
                Ok(())
            }
            Action::MakeHandoff { handoff } => match self.objects.create((**handoff).clone()).await {
                Ok(_) => Ok(()),
                // The answer to the first attempt was lost: the next pass looks at it.
                Err(error) if error.reason == Reason::AlreadyExists => Ok(()),
                Err(error) => Err(cannot("make the handoff")(error)),
            },
            Action::CancelHandoff { name } => {
                let patch = serde_json::json!({"spec": {"cancel": true}});
                self.objects.merge::<Handoff>(name, patch).await.map_err(cannot("cancel the handoff"))?;
                Ok(())
            }
            Action::RunCommand { container, command } => {
                self.commands.ensure(&name_of(promotion), container, command);
                Ok(())
            }
        }
    }
}

fn cannot(doing: &'static str) -> impl FnOnce(ApiError) -> PassError {
    move |source| PassError::Objects { doing, source }
}
