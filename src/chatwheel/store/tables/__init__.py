"""The tables, by subject. Times are Unix seconds; money is in billionths of a dollar, so that sums are exact."""

from chatwheel.store.tables.accounts import ApiKeyRow, AuditRow, MemberRow, ProjectRow, UserRole, UserRow
from chatwheel.store.tables.chats import ConversationRow, MessageRole, MessageRow, MessageStatus
from chatwheel.store.tables.declarative import Base, new_id
from chatwheel.store.tables.deployments import DeploymentRow, Outcome
from chatwheel.store.tables.feedback import (
    Choice,
    ComparisonRow,
    CorrectionRow,
    RatingReason,
    RatingRow,
    ReportReason,
    ReportRow,
)
from chatwheel.store.tables.labelling import (
    AssignmentState,
    LabellingAnswerRow,
    LabellingAssignmentRow,
    LabellingJudgementRow,
    LabellingQueueRow,
    LabellingTaskRow,
    TaskKind,
    TaskState,
)
from chatwheel.store.tables.metering import (
    BucketRow,
    InstanceRow,
    PriceRow,
    SpendingRow,
    UsageRow,
    UsageStatus,
)
from chatwheel.store.tables.personas import BriefRow, InstructionRow, PersonaRow, PromptRow
from chatwheel.store.tables.search import SearchTextRow
from chatwheel.store.tables.sign_in import AttemptRow, PasswordRow, SessionRow
from chatwheel.store.tables.tuning import (
    CheckpointRow,
    FileRow,
    FineTuningJobRow,
    JobEventRow,
    JobStatus,
    TunedModelRow,
    UploadRow,
)

__all__ = [
    "ApiKeyRow",
    "AssignmentState",
    "AttemptRow",
    "AuditRow",
    "Base",
    "BriefRow",
    "BucketRow",
    "CheckpointRow",
    "Choice",
    "ComparisonRow",
    "ConversationRow",
    "CorrectionRow",
    "DeploymentRow",
    "FileRow",
    "FineTuningJobRow",
    "InstanceRow",
    "InstructionRow",
    "JobEventRow",
    "JobStatus",
    "LabellingAnswerRow",
    "LabellingAssignmentRow",
    "LabellingJudgementRow",
    "LabellingQueueRow",
    "LabellingTaskRow",
    "MemberRow",
    "MessageRole",
    "MessageRow",
    "MessageStatus",
    "Outcome",
    "PasswordRow",
    "PersonaRow",
    "PriceRow",
    "ProjectRow",
    "PromptRow",
    "RatingReason",
    "RatingRow",
    "ReportReason",
    "ReportRow",
    "SearchTextRow",
    "SessionRow",
    "SpendingRow",
    "TaskKind",
    "TaskState",
    "TunedModelRow",
    "UploadRow",
    "UsageRow",
    "UsageStatus",
    "UserRole",
    "UserRow",
    "new_id",
]
