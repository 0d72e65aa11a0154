"""What is said of topics that are not what a spec needs."""

import pytest

from infra.kafka import ensure_topics
from schemas.system import parse_spec
from schemas.topics import topics_of
from streams.topic_check import check_topics
from tests.support import shipped_text, unique

pytestmark = pytest.mark.broker


def test_sensor_topics_must_say_when_the_broker_had_their_records(kafka: dict[str, str]) -> None:
    text = shipped_text("nav2d").replace("system: nav2d", f"system: {unique()}")
    wanted = topics_of(parse_spec(text))
    odometry = next(topic for topic in wanted if topic.name.endswith("odometry"))
    assert check_topics(kafka, [odometry]) == [
        f"{odometry.name}: absent; create it with `rehearse topics create`"
    ]
    create_time = {**odometry.config, "message.timestamp.type": "CreateTime"}
    ensure_topics(kafka, [(odometry.name, odometry.partitions, create_time)])
    assert check_topics(kafka, [odometry]) == [
        f"{odometry.name}: message.timestamp.type is CreateTime, the spec needs LogAppendTime"
    ]
