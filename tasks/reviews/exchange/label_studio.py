"""Questions as Label Studio's tasks with a labeling configuration, and its JSON exports read back.

A task is `{"data": {...}}`, whose fields are the columns of a question and the addresses of both photos. Of an
export (JSON, or JSON-MIN) the choice of `answer` is read, and the texts of `right_name` and `note`. Who
annotated is `completed_by` (an address of e-mail, or a number), when is `updated_at`.
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Mapping
from typing import Any
from urllib.parse import quote

from schemas.errors import SettingsError
from tasks.reviews.exchange.asked import Row
from tasks.reviews.exchange.incoming import Answer

CONFIG = """<View>
  <Header value="Do both photos show one animal? Of a wrong name: is the first photo's animal that of the second?"/>
  <Text name="question" value="$words"/>
  <View style="display: flex; gap: 1em">
    <Image name="image_a" value="$image_a" zoom="true"/>
    <Image name="image_b" value="$image_b" zoom="true"/>
  </View>
  <Choices name="answer" toName="image_a" choice="single" showInline="true" required="true">
    <Choice value="same" hint="one animal; of a wrong name: the proposed name is right"/>
    <Choice value="different" hint="two animals; of a wrong name: its own name is right"/>
    <Choice value="other" hint="of a wrong name: neither of both names is right"/>
    <Choice value="unsure"/>
    <Choice value="bad" hint="the photo is too bad to tell"/>
  </Choices>
  <Header value="The right name, where another one is right"/>
  <TextArea name="right_name" toName="image_a" maxSubmissions="1"/>
  <Header value="Note"/>
  <TextArea name="note" toName="image_a" maxSubmissions="1"/>
</View>
"""
"""The labeling configuration that goes with the tasks."""


def written(rows: Iterable[Row], images: str) -> str:
    """The tasks of questions, as JSON; `images` stands before each photo's path."""
    tasks = []
    for row in rows:
        data = {name: value for name, value in row.items() if value is not None and name != "answer"}
        data |= {
            f"image_{side}": images + quote(str(row[f"path_{side}"]), safe="/")
            for side in "ab"
            if row[f"path_{side}"]
        }
        # A question on one photo shows it twice, so that one configuration fits all.
        data.setdefault("image_b", data.get("image_a", ""))
        data["words"] = row["words"] or ""
        tasks.append({"data": data})
    return json.dumps(tasks, ensure_ascii=False, indent=1, default=str) + "\n"


def answers_in(data: bytes) -> list[Answer]:
    """The answers in an export; annotations that were cancelled are skipped. Raises `SettingsError`."""
    try:
        content = json.loads(data)
    except (ValueError, RecursionError) as error:
        raise SettingsError(
            f"the file is no JSON that can be read: {error}", "export it again as JSON"
        ) from error
    if not isinstance(content, list) or not all(isinstance(each, dict) for each in content):
        raise SettingsError("the file is no list of tasks", "export it from Label Studio as JSON or JSON-MIN")
    return [answer for number, task in enumerate(content, 1) for answer in _of_task(number, task)]


def _of_task(number: int, task: Mapping[str, Any]) -> Iterator[Answer]:
    if "data" not in task:
        if task.get("answer"):  # JSON-MIN: the fields of the task and the answers side by side
            who = task.get("annotator", task.get("completed_by"))
            yield _answer(f"task {number}", task, task, who, task)
        return
    data = task["data"] if isinstance(task["data"], dict) else {}
    annotations = task.get("annotations")
    for place, each in enumerate(annotations if isinstance(annotations, list) else (), 1):
        if not isinstance(each, dict) or each.get("was_cancelled"):
            continue
        results = each.get("result")
        said = (
            dict(_named(result) for result in results if isinstance(result, dict))
            if isinstance(results, list)
            else {}
        )
        if said:
            yield _answer(f"task {number}, annotation {place}", data, said, each.get("completed_by"), each)


def _named(result: Mapping[str, Any]) -> tuple[str, Any]:
    value = result.get("value")
    value = value if isinstance(value, dict) else {}
    return str(result.get("from_name")), value.get("choices", value.get("text"))


def _answer(
    place: str, data: Mapping[str, Any], said: Mapping[str, Any], who: Any, stamps: Mapping[str, Any]
) -> Answer:
    cells = {
        name: _text(value)
        for name, value in data.items()
        if name not in ("answer", "note", "right_name", "reviewer", "at", "review_id")
    }
    problem = ""
    for name in ("answer", "right_name", "note"):
        value = said.get(name)
        values = [v for v in (value if isinstance(value, list) else [value]) if v is not None]
        if name == "answer" and len(values) > 1:
            problem = f"several answers: {', '.join(map(_text, values))}"
        cells[name] = " ".join(map(_text, values))
    if not cells["answer"]:
        problem = "no choice named answer was made"
    cells["reviewer"] = _text(who.get("email") or who.get("id")) if isinstance(who, dict) else _text(who)
    cells["at"] = _text(stamps.get("updated_at") or stamps.get("created_at"))
    return Answer(place, cells, problem)


def _text(value: Any) -> str:
    if value is None:
        return ""
    return (
        value.strip()
        if isinstance(value, str)
        else json.dumps(value)
        if isinstance(value, list | dict)
        else str(value)
    )
