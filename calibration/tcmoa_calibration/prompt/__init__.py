"""Default prompts for tasks that a model was not trained on: alpha and beta of Eq. 8, searched on sample pairs.

    options = PromptSearchOptions(objective="Qabf+0.5*SSIM")
    calibrate_prompt("vif-640x480", find_pairs("medical"), "medical-640x480", options)

writes a bundle with the same graph and a better `prompt_default`.
"""

from tcmoa_calibration.prompt.calibrate import PromptCalibrationResult, calibrate_prompt
from tcmoa_calibration.prompt.objective import Objective, parse_objective
from tcmoa_calibration.prompt.report import Prompt, PromptSearchResult
from tcmoa_calibration.prompt.search import search_prompt

__all__ = [
    "Objective",
    "Prompt",
    "PromptCalibrationResult",
    "PromptSearchResult",
    "calibrate_prompt",
    "parse_objective",
    "search_prompt",
]
