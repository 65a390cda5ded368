"""Reading the text format of Prometheus with its own parser."""

from prometheus_client.parser import text_string_to_metric_families


def read_metrics(text):
    """Return the kind and the values by sorted labels of each name; raises where the text is malformed.

    Each metric must have one header, and each sample be there once.
    """
    headers = [line.split()[2] for line in text.splitlines() if line.startswith("# TYPE ")]
    assert len(set(headers)) == len(headers)
    metrics = {}
    for family in text_string_to_metric_families(text):
        assert family.type != "unknown", family.name
        for sample in family.samples:
            _, values = metrics.setdefault(sample.name, (family.type, {}))
            labels = tuple(sorted(sample.labels.items()))
            assert labels not in values, sample
            values[labels] = sample.value
    return metrics
