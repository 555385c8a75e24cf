"""AssemblyAI as a recognizer, through the vendor's asynchronous SDK.

Importing this package imports the SDK, which takes most of a second. It is therefore imported only when the recognizer
is opened.
"""

from agents.asr.assemblyai.client import DELIVERY_MS
from agents.asr.assemblyai.recognizer import CALLED_S, AssemblyAI, Callback

__all__ = ["CALLED_S", "DELIVERY_MS", "AssemblyAI", "Callback"]
