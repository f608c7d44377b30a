#!/usr/bin/env python3
"""Write tests/golden/prompts.json: what FastChat and Jinja make of a few conversations.

    pip install --no-deps --target DIR fschat==0.2.36
    PYTHONPATH=DIR "$(scripts/oracle.sh)" scripts/golden_prompts.py

Prompts by FastChat come from its `get_conv_template`, with replies stripped, as its servers store them. Prompts by Jinja
come from PyPI Jinja2, set up as Hugging Face's `transformers` sets it up, without the begin token in front: the source
is the shape of what a model of that family publishes, in short, and is written to the golden file too, so that our own
Jinja can be held against the same bytes. Where the two disagree about a format, or FastChat 0.2.36 does not know it, the
tables below leave one of them out; src/chat/templates.ts says why.

Absent: everything else of FastChat, models, anything that reads a golden file.
"""
import json
from importlib.metadata import version
from pathlib import Path

from fastchat.conversation import get_conv_template
from jinja2.sandbox import ImmutableSandboxedEnvironment

OUT = Path(__file__).parent.parent / "tests/golden/prompts.json"


def say(*contents, system=None):
    """Turns of user and assistant, after a system text if there is one."""
    turns = [{"role": ("user", "assistant")[i % 2], "content": c} for i, c in enumerate(contents)]
    return ([] if system is None else [{"role": "system", "content": system}]) + turns


CONVERSATIONS = {
    "one": say("Hello!"),
    "two": say("Hello!", "Hi!", "How are you?"),
    "lines": say("Zwei\nZeilen: {a} {{b}} 🦙", "- a\n- b\n\nc", "你好 ### ?"),
    "system": say("Hello!", system="Be brief."),
    "system two": say("Hello!", "Hi!", "How are you?", system="Be brief.\nBe kind."),
    "spaces": say("  a  ", " \n b\t\n", " c\n"),
    "system spaces": say("  a  ", " \n b\t\n", " c\n", system=" s \n"),
}
ALL = list(CONVERSATIONS)
TIDY = [name for name in ALL if "spaces" not in name]
WITHOUT_SYSTEM = ["one", "two", "lines"]
WITH_SYSTEM = ["system", "system two"]

# Our name, FastChat's, conversations.
FASTCHAT = [
    ("vicuna-v1.1", "vicuna_v1.1", ALL),
    ("vicuna-v0", "zero_shot", ALL),
    ("llama-2", "llama-2", TIDY),
    ("chatml", "Yi-34b-chat", WITHOUT_SYSTEM),
    ("chatml", "OpenHermes-2.5-Mistral-7B", WITH_SYSTEM),
    ("mistral", "mistral", WITHOUT_SYSTEM + ["spaces"]),
    ("alpaca", "alpaca", ALL),
    ("koala", "koala_v1", ALL),
    ("zephyr", "zephyr", WITH_SYSTEM),
    ("raw", "raw", TIDY),
]

# Our name, begin token, Jinja, conversations.
JINJA = [
    ("llama-2", "<s>", """\
{% set system = messages[0].content if messages[0].role == 'system' %}
{% for message in (messages[1:] if system else messages) %}
{%- if message.role == 'user' %}
{%- set opening = '<<SYS>>\\n' + system + '\\n<</SYS>>\\n\\n' if system and loop.first else '' %}
{{- bos_token + '[INST] ' + (opening + message.content).strip() + ' [/INST]' }}
{%- else %}
{{- ' ' + message.content.strip() + ' ' + eos_token }}
{%- endif %}
{%- endfor %}""", ALL),
    ("llama-3", "<|begin_of_text|>", """\
{{- bos_token }}
{%- for message in messages %}
{{- '<|start_header_id|>' + message.role + '<|end_header_id|>\\n\\n' + message.content | trim + '<|eot_id|>' }}
{%- endfor %}
{{- '<|start_header_id|>assistant<|end_header_id|>\\n\\n' }}""", ALL),
    ("chatml", "", """\
{% for message in messages %}
{{- '<|im_start|>' + message.role + '\\n' + message.content + '<|im_end|>\\n' }}
{%- endfor %}
{{- '<|im_start|>assistant\\n' }}""", ALL),
    ("zephyr", "", """\
{% for message in messages %}
{{- '<|' + message.role + '|>\\n' + message.content + eos_token + '\\n' }}
{%- endfor %}
{{- '<|assistant|>\\n' }}""", ALL),
    ("gemma", "<bos>", """\
{{- bos_token }}
{%- for message in messages %}
{%- set role = 'model' if message.role == 'assistant' else message.role %}
{{- '<start_of_turn>' + role + '\\n' + message.content | trim + '<end_of_turn>\\n' }}
{%- endfor %}
{{- '<start_of_turn>model\\n' }}""", WITHOUT_SYSTEM + ["spaces"]),
]

ENVIRONMENT = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)


def by_fastchat(name, messages):
    conv = get_conv_template(name)
    for message in messages:
        if message["role"] == "system":
            conv.set_system_message(message["content"])
        elif message["role"] == "user":
            conv.append_message(conv.roles[0], message["content"])
        else:
            conv.append_message(conv.roles[1], message["content"].strip())
    conv.append_message(conv.roles[1], None)
    return conv.get_prompt()


def by_jinja(source, bos, messages):
    text = ENVIRONMENT.from_string(source).render(messages=messages, bos_token=bos, eos_token="</s>")
    return text.removeprefix(bos)


def main():
    prompts = [
        {"template": ours, "by": f"FastChat {theirs}", "conversation": name,
         "prompt": by_fastchat(theirs, CONVERSATIONS[name])}
        for ours, theirs, names in FASTCHAT for name in names
    ] + [
        {"template": ours, "by": "Jinja", "conversation": name,
         "prompt": by_jinja(source, bos, CONVERSATIONS[name])}
        for ours, bos, source, names in JINJA for name in names
    ]
    golden = {
        "command": "scripts/golden_prompts.py",
        "versions": {name: version(name) for name in ("fschat", "Jinja2")},
        "conversations": CONVERSATIONS,
        "jinja": {ours: {"bos": bos, "source": source} for ours, bos, source, _ in JINJA},
        "prompts": prompts,
    }
    lines = json.dumps(golden, ensure_ascii=False, indent=1)
    OUT.write_text(lines + "\n", encoding="utf-8")
    print(f"{len(prompts)} prompts in {OUT.name}")


main()
