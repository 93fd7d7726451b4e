"""Scores of choices against lm-eval (extra `eval`); needs the data folder."""

import pytest
from task_settings import of_real_items
from transformers import AutoModelForCausalLM, AutoTokenizer

from hpc_llm.evaluation.tasks import read_questions
from hpc_llm.evaluation.tasks.scorer import Scorer
from hpc_llm.stages.texts import encoder, first_token

ITEMS = 20


@pytest.mark.parametrize("name", ["parus", "ruworldtree"])
def test_log_likelihoods_equal_lm_eval(shared, name):
    pytest.importorskip("lm_eval")
    from lm_eval.api.instance import Instance
    from lm_eval.models.huggingface import HFLM

    path = shared / "data" / "models" / "stories260K-hf"
    model = AutoModelForCausalLM.from_pretrained(path).eval()
    tokenizer = AutoTokenizer.from_pretrained(path)
    settings = of_real_items(shared, [name], ITEMS)
    scorer = Scorer(model, tokenizer, encoder(tokenizer), first_token(tokenizer), settings)
    questions = read_questions(name, settings)
    requests = [(q.context, q.separator + choice) for q in questions for choice in q.choices]
    theirs = HFLM(pretrained=model, tokenizer=tokenizer, add_bos_token=True, batch_size=16)
    expected = theirs.loglikelihood(
        [
            Instance(request_type="loglikelihood", doc={}, arguments=request, idx=index)
            for index, request in enumerate(requests)
        ],
        disable_tqdm=True,
    )
    ours = [score.nats for score in scorer.scores(requests)]
    assert len(ours) >= 2 * ITEMS
    assert ours == pytest.approx([nats for nats, _ in expected], abs=1e-4, rel=1e-6)
