"""OpenAI's client for Python, as it is, against a server that tests/clients_python_test.ts starts.

    clients_python.py http://127.0.0.1:8000/v1

Each function below is one check; its outcome is a line of JSON. The server's model is `fake` and says what it was asked:
the last line of a prompt after its role; `a long story` is one. Where it is told of the tool `weather` it calls it, and
says the result.
"""

import asyncio
import json
import sys
import traceback

import openai
import pydantic

MESSAGES = [{"role": "user", "content": "one two three"}]
ASKED = {"model": "fake", "messages": MESSAGES}


def chat_whole(client):
    completion = client.chat.completions.create(**ASKED, temperature=0, max_tokens=2, stop=["END"], seed=1)
    [choice] = completion.choices
    assert choice.message.content == "one two", choice
    assert choice.finish_reason == "length", choice
    assert completion.usage.completion_tokens == 2, completion.usage
    assert completion._request_id, completion


def chat_streamed(client):
    stream = client.chat.completions.create(**ASKED, stream=True, stream_options={"include_usage": True})
    chunks = list(stream)
    text = "".join(choice.delta.content or "" for chunk in chunks for choice in chunk.choices)
    assert text == "one two three", text
    assert chunks[-2].choices[0].finish_reason == "stop", chunks[-2]
    assert chunks[-1].usage.completion_tokens == 3, chunks[-1]


def chat_helper(client):
    with client.chat.completions.stream(**ASKED) as stream:
        deltas = [event.delta for event in stream if event.type == "content.delta"]
    assert "".join(deltas) == "one two three", deltas
    assert stream.get_final_completion().choices[0].message.content == "one two three"


def chat_async(client):
    async def ask():
        async with openai.AsyncOpenAI(base_url=client.base_url, api_key="none") as asked:
            stream = await asked.chat.completions.create(**ASKED, stream=True)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    assert asyncio.run(ask()) == "one two three"


def chat_choices(client):
    completion = client.chat.completions.create(**ASKED, n=2, logprobs=True, top_logprobs=2)
    assert [choice.index for choice in completion.choices] == [0, 1], completion
    [first, *_] = completion.choices[1].logprobs.content
    assert first.token == "one" and len(first.top_logprobs) == 2, first


WEATHER = {
    "type": "function",
    "function": {
        "name": "weather",
        "strict": True,
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}


def tools(client):
    asked = {"model": "fake", "messages": [{"role": "user", "content": "How is Paris?"}], "tools": [WEATHER]}
    message = client.chat.completions.create(**asked).choices[0].message
    [call] = message.tool_calls
    assert (call.function.name, json.loads(call.function.arguments)) == ("weather", {"city": "Paris"}), call
    with client.chat.completions.stream(**asked) as stream:
        done = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
    assert [event.parsed_arguments for event in done] == [{"city": "Paris"}], done
    assert stream.get_final_completion().choices[0].finish_reason == "tool_calls"
    result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    answer = client.chat.completions.create(**{**asked, "messages": [*asked["messages"], message, result]})
    assert answer.choices[0].message.content == "It is sunny.", answer


class City(pydantic.BaseModel):
    city: str


def structured(client):
    messages = [{"role": "user", "content": '{"city": "Paris"}'}]
    completion = client.chat.completions.parse(model="fake", messages=messages, response_format=City)
    assert completion.choices[0].message.parsed == City(city="Paris"), completion


def completions(client):
    whole = client.completions.create(model="fake", prompt=["user:a b", "user:c d"], n=2, max_tokens=1)
    assert [choice.text for choice in whole.choices] == ["a", "a", "c", "c"], whole
    stream = client.completions.create(model="fake", prompt="user:a b", stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == "a b"


def responses(client):
    asked = {"model": "fake", "input": "one two three"}
    whole = client.responses.create(**asked, instructions="be brief", max_output_tokens=50)
    assert (whole.output_text, whole.status) == ("one two three", "completed"), whole
    assert client.responses.retrieve(whole.id).output_text == "one two three"
    with client.responses.stream(**asked) as stream:
        events = list(stream)
    text = "".join(event.delta for event in events if event.type == "response.output_text.delta")
    assert (text, events[-1].type) == ("one two three", "response.completed"), events
    assert [event.sequence_number for event in events] == list(range(len(events))), events
    assert stream.get_final_response().output_text == "one two three"


def responses_continued(client):
    first = client.responses.create(model="fake", input="one")
    second = client.responses.create(model="fake", input="two", previous_response_id=first.id)
    assert second.output_text == "two" and second.usage.input_tokens > first.usage.input_tokens, second
    items = client.responses.input_items.list(second.id, order="asc").data
    assert items[-1].content[0].text == "two", items
    client.responses.delete(first.id)
    refused(openai.NotFoundError, client.responses.retrieve, first.id)


def conversations(client):
    said = {"type": "message", "role": "user", "content": "one"}
    kept = client.conversations.create(items=[said], metadata={"topic": "numbers"})
    assert client.conversations.retrieve(kept.id).metadata == {"topic": "numbers"}
    client.conversations.items.create(kept.id, items=[{**said, "content": "two"}])
    items = client.conversations.items.list(kept.id, order="asc").data
    assert [item.content[0].text for item in items] == ["one", "two"], items
    assert client.conversations.update(kept.id, metadata={"topic": "more"}).metadata == {"topic": "more"}
    assert client.conversations.delete(kept.id).deleted
    refused(openai.NotFoundError, client.conversations.retrieve, kept.id)


def models(client):
    assert [model.id for model in client.models.list()] == ["fake"]
    assert client.models.retrieve("fake").id == "fake"


def conversations(client):
    items = [{"role": "user", "content": str(number)} for number in range(5)]
    made = client.conversations.create(items=items[:2], metadata={"a": "b"})
    added = client.conversations.items.create(made.id, items=items[2:])
    assert [item.content[0].text for item in added.data] == ["2", "3", "4"], added
    listed = client.conversations.items.list(made.id, order="asc", limit=2)
    assert [item.content[0].text for item in listed] == ["0", "1", "2", "3", "4"]
    client.conversations.items.delete(added.first_id, conversation_id=made.id)
    assert client.conversations.update(made.id, metadata={}).metadata == {}
    assert client.conversations.delete(made.id).deleted
    try:
        client.conversations.retrieve(made.id)
    except openai.NotFoundError as error:
        assert error.code == "not_found", error
    else:
        raise AssertionError("expected NotFoundError")


def refusals(client):
    for stream in (False, True):
        for kind, fields in {openai.NotFoundError: {"model": "gpt-5"}, openai.BadRequestError: {"temperature": 3}}.items():
            error = refused(kind, client.chat.completions.create, **{**ASKED, **fields}, stream=stream)
            assert error.param in fields, error
            assert error.request_id, error


def refused(kind, call, *args, **kwargs):
    """The error that a call must end with."""
    try:
        call(*args, **kwargs)
    except kind as error:
        return error
    raise AssertionError(f"expected {kind.__name__}")


def leaving(client):
    messages = [{"role": "user", "content": "a long story"}]
    stream = client.chat.completions.create(model="fake", messages=messages, stream=True)
    next(iter(stream))
    stream.close()


CHECKS = [
    chat_whole,
    chat_streamed,
    chat_helper,
    chat_async,
    chat_choices,
    tools,
    structured,
    completions,
    responses,
    responses_continued,
    conversations,
    models,
    refusals,
    leaving,
]


def main():
    client = openai.OpenAI(base_url=sys.argv[1], api_key="none", max_retries=0)
    for check in CHECKS:
        try:
            check(client)
            error = None
        except Exception:
            error = traceback.format_exc()
        print(json.dumps({"name": check.__name__, "error": error}), flush=True)


main()
