"""OpenAI's client for Python, as it is, against a server that tests/clients_python_test.ts starts.

    clients_python.py http://127.0.0.1:8000/v1

Each function below is one check; its outcome is a line of JSON. The server's model is `fake` and says what it was asked:
the last line of a prompt after its role; `a long story` is one.
"""

import asyncio
import json
import sys
import traceback

import openai

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


def completions(client):
    whole = client.completions.create(model="fake", prompt=["user:a b", "user:c d"], n=2, max_tokens=1)
    assert [choice.text for choice in whole.choices] == ["a", "a", "c", "c"], whole
    stream = client.completions.create(model="fake", prompt="user:a b", stream=True)
    assert "".join(chunk.choices[0].text for chunk in stream) == "a b"


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
        refused = {
            openai.NotFoundError: {"model": "gpt-5"},
            openai.BadRequestError: {"temperature": 3},
        }
        for kind, fields in refused.items():
            try:
                client.chat.completions.create(**{**ASKED, **fields}, stream=stream)
            except kind as error:
                assert error.param in fields, error
                assert error.request_id, error
            else:
                raise AssertionError(f"expected {kind.__name__}")


def leaving(client):
    messages = [{"role": "user", "content": "a long story"}]
    stream = client.chat.completions.create(model="fake", messages=messages, stream=True)
    next(iter(stream))
    stream.close()


CHECKS = [chat_whole, chat_streamed, chat_helper, chat_async, completions, models, conversations, refusals, leaving]


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
